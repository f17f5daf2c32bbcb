"""The fork server: a process that forks the processes of isolated tasks.

The Foreman has threads, so it must not fork. It forks the fork server before it starts any. The fork server
has everything imported, no files open, and one thread. Only the fork server reaps and signals children, so no
signal goes to a process that reused a pid. It ends with the Foreman, and its children end with it. Until the
last child has ended, it holds the Foreman's lock.

There are two kinds of sockets. On *control*, the Foreman asks to start and to end children. On a *channel*, a
child and its supervisor (a worker thread) communicate. The fork server keeps a copy of the child's end, to
report that the child starts and how it ended. A message on a channel is a line of JSON.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from itertools import count
from typing import NoReturn

from django.db import connections

from ...errors import CannotStart
from . import child

#: The Foreman's requests. LOCK comes with the lock's descriptor, SPAWN with the child's end of a channel.
LOCK, SPAWN, REVOKE, KILL = b"lock", b"spawn", b"revoke", b"kill"
#: The longest request, in bytes.
MOST_BYTES = 1000
#: How often to look for children that have ended without a signal, in milliseconds.
REAP_EVERY = 1000
#: How long to wait for the fork server to end, in seconds.
PATIENCE = 5.0
#: How long a supervisor may take to read a full channel when its child has ended, in seconds.
TOLD_WITHIN = 5.0


class ForkServer:
    """The Foreman's side. Creating it forks; supervisors call the other methods."""

    def __init__(self) -> None:
        """Fork. Call this before the process has threads. Raises CannotStart."""
        self._numbers = count(1)
        connections.close_all()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError, OSError):  # missing or closed
                stream.flush()  # or each child would write the buffered output again
        try:
            self._fork()
        except OSError as error:
            raise CannotStart(
                f"The Foreman cannot start: no process could be started for isolated tasks: {error}."
            ) from error
        # a copy in a process that a task forks would hide the Foreman's end from the fork server
        os.register_at_fork(after_in_child=self._control.close)

    def _fork(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.pid = os.fork()
            if self.pid == 0:
                self._control.close()
                _serve(theirs)

    def keep(self, lock: int) -> None:
        """Hold the lock of this descriptor until the last child has ended."""
        socket.send_fds(self._control, [LOCK], [lock])

    def spawn(self) -> tuple[int, socket.socket]:
        """Ask for a child. Return its number and the supervisor's end of its channel.

        Raises OSError if the fork server has ended or no descriptors are left.
        """
        number = next(self._numbers)
        ours, childs = socket.socketpair()
        with childs:
            socket.send_fds(self._control, [b"%s %d" % (SPAWN, number)], [childs.fileno()])
        return number, ours

    def signal(self, request: bytes, number: int, flags: int = 0) -> None:
        """Send REVOKE or KILL for a child, if it still runs."""
        with contextlib.suppress(OSError):  # the fork server has ended, and its children with it
            self._control.send(b"%s %d" % (request, number), flags)

    def is_gone(self) -> bool:
        """Return whether the fork server has ended unexpectedly."""
        poll = select.poll()
        poll.register(self._control, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """End the fork server and all children."""
        self._control.close()
        give_up = time.monotonic() + PATIENCE
        with contextlib.suppress(ChildProcessError):  # a task may have reaped it
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0) and time.monotonic() < give_up:
                time.sleep(0.001)


def _serve(control: socket.socket) -> NoReturn:
    exit_code = 1
    try:
        _Server(control).serve()
        exit_code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(exit_code)


class _Server:
    """The process itself."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pid = os.getpid()
        self._lock: int | None = None
        #: The number of each child and its end of the channel, by pid.
        self._children: dict[int, tuple[int, socket.socket]] = {}
        #: SIGCHLD writes to one, so that the other wakes poll().
        self._alarm, self._ringer = socket.socketpair()

    def serve(self) -> None:
        """Fork and reap until the Foreman has ended."""
        child.name_process("snappea-forks")
        self._set_signals()
        gc.collect()
        gc.freeze()  # so that a collection in a child does not copy all the pages
        poll = select.poll()
        for readable in (self._control, self._alarm):
            poll.register(readable, select.POLLIN)
        is_over = False
        while not is_over:
            ready = {descriptor for descriptor, _events in poll.poll(REAP_EVERY if self._children else None)}
            if self._alarm.fileno() in ready:
                self._alarm.recv(MOST_BYTES)
            self._reap()  # each time, because a SIGCHLD may get lost
            if self._control.fileno() in ready:
                is_over = not self._answer()
        for pid in self._children:
            _kill(pid)
        for pid in self._children:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            _kill(pid)  # processes that it may have just forked

    def _set_signals(self) -> None:
        # a terminal or a service manager sends these to all processes; the Foreman decides when to stop
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {child.REVOKED})  # until a child can handle it
        for end in (self._alarm, self._ringer):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._ringer.fileno(), warn_on_full_buffer=False)

    def _answer(self) -> bool:
        """Do what the Foreman asks for. Return False once the Foreman has ended."""
        request, descriptors, _flags, _sender = socket.recv_fds(
            self._control, MOST_BYTES, 1, socket.MSG_CMSG_CLOEXEC
        )
        word, _space, number = request.partition(b" ")
        if word == LOCK and descriptors:
            self._lock = descriptors[0]
        elif word == SPAWN and descriptors:  # without one, no descriptors were left: the channel just ends
            self._spawn(int(number), socket.socket(fileno=descriptors[0]))
        elif word in (REVOKE, KILL):
            for pid, (one, _channel) in self._children.items():
                if one == int(number):
                    os.kill(pid, child.REVOKED) if word == REVOKE else _kill(pid)
        return bool(request)

    def _spawn(self, number: int, channel: socket.socket) -> None:
        try:
            _tell(channel, started=True)  # before the fork: without this message, nothing can have run
            pid = os.fork()
        except OSError as error:
            _tell(channel, refused=str(error))
            channel.close()
            return
        if pid == 0:
            self._be_child(channel)
        self._children[pid] = number, channel

    def _be_child(self, channel: socket.socket) -> NoReturn:
        """Be the child, without the sockets of others."""
        try:
            signal.set_wakeup_fd(-1)
            others = [other for _number, other in self._children.values()]
            for one in (self._control, self._alarm, self._ringer, *others):
                one.close()
            child.main(channel, self._lock, self._pid)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        """Reap children that have ended, and first kill what they left in their process groups."""
        while self._children and (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            pid = ended.si_pid
            _kill(pid)
            _pid, status = os.waitpid(pid, 0)
            _number, channel = self._children.pop(pid)
            channel.settimeout(TOLD_WITHIN)
            _tell(channel, ended=os.waitstatus_to_exitcode(status))
            channel.close()


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # a child that was just forked has no group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _tell(channel: socket.socket, **words: object) -> None:
    """Send a line to a supervisor. The child may have been killed in the middle of its own line."""
    with contextlib.suppress(OSError):  # the supervisor no longer listens
        channel.sendall(b"\n%s\n" % json.dumps(words).encode())
