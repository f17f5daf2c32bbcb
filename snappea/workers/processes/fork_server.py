"""The ForkServer: a process that forks the processes of isolated tasks.

The Foreman has threads, and must not fork; it forks the ForkServer before there are any. That has
everything imported, nothing open, and one thread. A guardian (a worker's thread) sends it two sockets:
the child's end of a channel, and a line, on which it tells how the child ended, and hears whether to
interrupt or kill it. It alone reaps and signals, so no signal ever goes to a process that took over a
pid. It ends when the Foreman does, and its children with it; until the last of them is gone, it holds
the Foreman's lock.
"""

import contextlib
import gc
import os
import select
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from django.db import connections

from ...errors import CannotStart
from . import child

#: What the Foreman sends, and with which descriptors.
LOCK, BEAR = b"lock", b"bear"
#: What a guardian sends on its line; to close it means to kill as well.
INTERRUPT, KILL = b"interrupt", b"kill"
#: What comes back: before it forks, and how the words begin with the exit code, or the reason, after it.
BORN, ENDED, REFUSED = "born", "ended ", "refused "
#: The longest of these, in bytes.
MOST_BYTES = 1000
#: How long to wait for the end of the ForkServer, in seconds.
PATIENCE = 5.0


class ForkServer:
    """The Foreman's end of it. Making one forks; `bear()` is for the guardians' threads."""

    def __init__(self) -> None:
        """Fork. To be called before the process has threads. Raises CannotStart."""
        connections.close_all()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError, OSError):  # there is none, or it is closed
                stream.flush()  # or each child would write what is left in it
        try:
            self._fork()
        except OSError as error:
            raise CannotStart(
                f"The Foreman cannot start: no process to be had for isolated tasks: {error}."
            ) from error
        # a copy in what a task forks would keep the ForkServer from hearing of the Foreman's end
        os.register_at_fork(after_in_child=self._control.close)

    def _fork(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.pid = os.fork()
            if self.pid == 0:
                self._control.close()
                _serve(theirs)

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def keep(self, lock: int) -> None:
        """Have the lock of this descriptor held until the last child is gone."""
        socket.send_fds(self._control, [LOCK], [lock])

    def bear(self) -> tuple[socket.socket, socket.socket]:
        """Ask for a child, and return its guardian's ends of channel and line.

        Raises OSError if the ForkServer is gone, or there are no descriptors to be had.
        """
        channel, childs = socket.socketpair()
        with childs:
            line, servers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with servers:
                socket.send_fds(self._control, [BEAR], [childs.fileno(), servers.fileno()])
        return channel, line

    def is_gone(self) -> bool:
        """Tell whether it has ended, which it should not."""
        poll = select.poll()
        poll.register(self._control, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """End it, and all children with it."""
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
        #: To the guardian of each child, by the child's pid.
        self._lines: dict[int, socket.socket] = {}
        self._is_over = False
        self._selector = selectors.PollSelector()  # not epoll, which children would share
        self._alarm, self._ringer = socket.socketpair()
        self._listen(control, self._hear)
        self._listen(self._alarm, self._reap)

    def _listen(self, to: socket.socket, hear: Callable[[], object]) -> None:
        self._selector.register(to, selectors.EVENT_READ, hear)

    def serve(self) -> None:
        """Bear and reap until the Foreman is gone, or wants no more."""
        child.name_process("snappea-nursery")
        self._set_signals()
        gc.collect()
        gc.freeze()  # so that a collection in a child does not copy all the pages
        while not self._is_over:
            for key, _events in self._selector.select():
                key.data()
        for pid in self._lines:
            self._kill(pid)
        for pid in self._lines:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            self._kill(pid)  # what it may have forked in its last moment

    def _set_signals(self) -> None:
        # a terminal, or a service's stop, sends them to all; it is the Foreman who decides
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        # until a child can handle it
        signal.pthread_sigmask(signal.SIG_BLOCK, {child.INTERRUPT})
        for end in (self._alarm, self._ringer):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._ringer.fileno(), warn_on_full_buffer=False)

    def _hear(self) -> None:
        """Do what the Foreman asks for."""
        words, descriptors, _flags, _sender = socket.recv_fds(
            self._control, MOST_BYTES, 2, socket.MSG_CMSG_CLOEXEC
        )
        if not words:
            self._is_over = True
        elif words == LOCK and descriptors:
            self._lock = descriptors[0]
        elif words == BEAR and len(descriptors) == 2:
            self._bear(*(socket.socket(fileno=descriptor) for descriptor in descriptors))
        else:  # no descriptors left: closing what came tells the guardian
            for descriptor in descriptors:
                os.close(descriptor)

    def _bear(self, channel: socket.socket, line: socket.socket) -> None:
        with channel:
            try:
                line.send(BORN.encode())  # beforehand: where this was not said, nothing can have run
                pid = os.fork()
            except OSError as error:
                _say(line, f"{REFUSED}{error}")
                line.close()
                return
            if pid == 0:
                self._let_live(channel, line)
        self._lines[pid] = line
        self._listen(line, partial(self._obey, pid, line))

    def _let_live(self, channel: socket.socket, line: socket.socket) -> NoReturn:
        """Be the child, with nothing that is not its own."""
        try:
            signal.set_wakeup_fd(-1)
            for others in (self._control, self._alarm, self._ringer, line, *self._lines.values()):
                others.close()
            child.live(channel, self._lock, self._pid)
        finally:
            os._exit(1)

    def _obey(self, pid: int, line: socket.socket) -> None:
        """Do to a child what its guardian asks for."""
        if self._lines.get(pid) is not line:
            return  # it ended in this very turn
        try:
            word = line.recv(MOST_BYTES)
        except OSError:  # the guardian went without having read what it was told
            word = b""
        if word == INTERRUPT:
            os.kill(pid, child.INTERRUPT)
            return
        if not word:
            self._selector.unregister(line)
        self._kill(pid)

    def _kill(self, pid: int) -> None:
        for kill in (os.killpg, os.kill):  # it has no group yet if it was born just now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Take leave of the children that have ended, and end what they left in their groups."""
        self._alarm.recv(MOST_BYTES)
        while self._lines and (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            pid = ended.si_pid
            self._kill(pid)
            _pid, status = os.waitpid(pid, 0)
            line = self._lines.pop(pid)
            _say(line, f"{ENDED}{os.waitstatus_to_exitcode(status)}")
            with contextlib.suppress(KeyError):
                self._selector.unregister(line)
            line.close()


def _say(line: socket.socket, words: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        line.send(words.encode()[:MOST_BYTES])
