"""The fork server: a process that forks the processes of isolated tasks.

The Foreman has threads, so it must not fork. If the project has isolated tasks, it forks the fork server
before it starts any. Otherwise, or if the fork server has died, it executes its own command line in a
new process for the next isolated task. That process imports the project again and becomes the fork server.

The fork server has everything imported, no files open, and one thread. Only the fork server reaps and signals
children, so no signal goes to a process that reused a pid. It ends with the Foreman, and its children end
with it. Until the last child has ended, it holds the Foreman's lock.

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
import subprocess
import sys
import threading
import time
import traceback
from itertools import count
from typing import NoReturn

from django.db import connections

from ...errors import CannotStart
from . import child

#: The Foreman's requests. LOCK comes with the lock's descriptor, SPAWN with the child's end of a channel.
LOCK, SPAWN, REVOKE, KILL = b"lock", b"spawn", b"revoke", b"kill"
#: What a fork server says first if it was executed, and the variable that names the descriptor of its socket.
READY = b"ready"
CONTROL = "SNAPPEA_FORK_SERVER"
#: How long it may take to import the project, in milliseconds.
READY_WITHIN = 60_000
#: The directory where the process was started, because its command line may contain relative paths.
HOME = "."
with contextlib.suppress(OSError):  # it was deleted
    HOME = os.getcwd()
#: The longest request, in bytes.
MOST_BYTES = 1000
#: How often to look for children that have ended without a signal, in milliseconds.
REAP_EVERY = 1000
#: How long to wait for the fork server to end, in seconds.
PATIENCE = 5.0
#: How long a supervisor may take to read a full channel when its child has ended, in seconds.
TOLD_WITHIN = 5.0


class ForkServer:
    """The Foreman's side. Supervisors call the methods."""

    def __init__(self, is_needed: bool) -> None:
        """Fork if `is_needed`. Call this before the process has threads. Raises CannotStart."""
        self._numbers = count(1)
        self._starts = threading.Lock()
        self._lock: int | None = None
        self._is_closed = False
        self.pid = 0
        try:
            self._control, other = socket.socketpair()
            other.close()  # until there is a fork server, it leads nowhere
            # a copy in a process that a task forks would hide the Foreman's end from the fork server
            os.register_at_fork(after_in_child=lambda: self._control.close())
            if is_needed:
                self._fork()
        except OSError as error:
            raise CannotStart(
                f"The Foreman cannot start: no process could be started for isolated tasks: {error}."
            ) from error

    def _fork(self) -> None:
        connections.close_all()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError, OSError):  # missing or closed
                stream.flush()  # or each child would write the buffered output again
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.pid = os.fork()
            if self.pid == 0:
                ours.close()
                _serve(theirs)
        self._control = ours

    def _execute(self) -> None:
        """Start a fork server from a process that has threads. Raises OSError."""
        self._reap()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            environment = os.environ | {CONTROL: str(number)}
            command = [sys.executable, *sys.orig_argv[1:]]
            # as in one that is forked: the Foreman decides when to stop, also while this one starts
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            try:
                process = subprocess.Popen(command, cwd=HOME, env=environment, pass_fds=[number])
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.pid, process.returncode = process.pid, 0  # _reap() waits for it
        if self._lock is not None:
            socket.send_fds(self._control, [LOCK], [self._lock])
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if not poll.poll(READY_WITHIN):
            _kill(self.pid)
        if self._control.recv(MOST_BYTES) != READY:
            raise OSError("the fork server ended while it started")

    def keep(self, lock: int) -> None:
        """Hold the lock of this descriptor until the last child has ended."""
        self._lock = lock
        if self.pid:
            socket.send_fds(self._control, [LOCK], [lock])

    def spawn(self) -> tuple[int, socket.socket]:
        """Ask for a child. Return its number and the supervisor's end of its channel.

        Starts a fork server if there is none. Raises OSError if that fails or no descriptors are left.
        """
        with self._starts:
            if not self._is_closed and self._is_gone():
                self._execute()
        number = next(self._numbers)
        ours, childs = socket.socketpair()
        with childs:
            socket.send_fds(self._control, [b"%s %d" % (SPAWN, number)], [childs.fileno()])
        return number, ours

    def signal(self, request: bytes, number: int, flags: int = 0) -> None:
        """Send REVOKE or KILL for a child, if it still runs."""
        with contextlib.suppress(OSError):  # the fork server has ended, and its children with it
            self._control.send(b"%s %d" % (request, number), flags)

    def _is_gone(self) -> bool:
        """Return whether there is no fork server, or none any longer."""
        poll = select.poll()
        poll.register(self._control, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """End the fork server and all children."""
        self._is_closed = True
        self._control.close()
        self._reap()

    def _reap(self) -> None:
        give_up = time.monotonic() + PATIENCE
        with contextlib.suppress(ChildProcessError):  # a task may have reaped it
            while self.pid and os.waitpid(self.pid, os.WNOHANG) == (0, 0) and time.monotonic() < give_up:
                time.sleep(0.001)


def serve_if_asked() -> None:
    """Become the fork server, and never return, if a Foreman has executed this process for that."""
    if number := os.environ.pop(CONTROL, ""):
        connections.close_all()
        control = socket.socket(fileno=int(number))
        with contextlib.suppress(OSError):  # the Foreman has ended
            control.send(READY)
        _serve(control)


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
