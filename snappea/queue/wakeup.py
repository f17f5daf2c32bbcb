"""The Bell, which waits for the wakeups that `database.ring()` sends.

A wakeup is only a hint; the table is the truth. A lost wakeup delays a task by two seconds at most.
"""

import errno
import logging
import math
import os
import select
import socket
import struct
from functools import partial
from typing import Any

from ..conf import current
from ..log import say_once
from .files import QueueFile, open_beside

#: How long to wait for a ring before checking the table, in seconds.
LOOK_EVERY = 2.0
#: An event of inotify. For a watched file, no name follows it.
_EVENT = struct.Struct("iIII")
_warn_once = partial(say_once, logging.WARNING, logger=logging.getLogger("snappea.wakeup"))


class Bell:
    """Waits for a ring, or for a nudge from a thread or a signal handler."""

    #: Whether it has stopped listening, because another Foreman does.
    is_deaf = False

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        #: For signal.set_wakeup_fd().
        self.wakeup_fd = self._writer.fileno()
        #: Its other end.
        self.reader_fd = self._reader.fileno()
        self._nudges = select.poll()
        self._nudges.register(self._reader, select.POLLIN)
        self._all = select.poll()
        self._all.register(self._reader, select.POLLIN)

    @property
    def patience(self) -> float:
        """How long to wait before checking the table, in seconds."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """How it waits, as one word for the log."""
        raise NotImplementedError

    def nudge(self) -> None:
        """End the current or the next wait(). Threads may call it at any time."""
        try:
            self._writer.send(b"\0")
        except (BlockingIOError, OSError):
            pass  # full: it wakes up anyway; closed: the Foreman has ended

    def wait(self, timeout: float, for_rings: bool = True) -> bool:
        """Sleep until a ring, a nudge, or the timeout in seconds. Tell whether it rang.

        Without `for_rings`, rings are left for the next wait.
        """
        ready = (self._all if for_rings else self._nudges).poll(math.ceil(max(timeout, 0) * 1000))
        rang = False
        for descriptor, _events in ready:
            if descriptor == self._reader.fileno():
                self._drain()
            else:
                rang = self._hear()
        return rang

    def listen(self) -> None:
        """Listen again."""

    def rest(self, seconds: float) -> None:
        """Pause after a ring that brought no work."""
        self.wait(seconds, for_rings=False)

    def _hear(self) -> bool:
        """Read the event, and tell whether it was a ring."""
        raise NotImplementedError

    def _drain(self) -> None:
        try:
            while len(self._reader.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close all descriptors."""
        self._reader.close()
        self._writer.close()


class FileBell(Bell):
    """Rings when the wakeup file is touched, by inotify if possible, otherwise by polling."""

    def __init__(self, file: QueueFile) -> None:
        super().__init__()
        self._file = file
        self._inotify: Any = _inotify() if current().USE_INOTIFY else None
        if self._inotify:
            self._all.register(self._inotify, select.POLLIN)
        self._watched: tuple[int, int] | None = None
        self._touched = 0
        self.install()

    @property
    def patience(self) -> float:  # noqa: D102  (see Bell)
        return LOOK_EVERY if self._is_watching() else current().POLL_INTERVAL

    @property
    def kind(self) -> str:  # noqa: D102  (see Bell)
        return "inotify" if self._is_watching() else "polling"

    def _is_watching(self) -> bool:
        return bool(self._inotify and self._watched)

    def wait(self, timeout: float, for_rings: bool = True) -> bool:
        """Do as Bell.wait(), and check the file's time of change where inotify does not watch it."""
        rang = super().wait(timeout, for_rings)
        if for_rings and not rang and not self._is_watching():
            rang = self._was_touched()
        return rang

    def _hear(self) -> bool:
        # inotify_simple's read() makes two more system calls
        for _watch, mask, _cookie, _length in _EVENT.iter_unpack(os.read(self._inotify.fileno(), 4096)):
            if mask & self._gone:
                self._watched = None
        if self._watched is None:
            self.install()
        return True

    def _was_touched(self) -> bool:
        try:
            touched = os.stat(self._file.wakeup).st_mtime_ns
        except OSError:
            return False
        rang, self._touched = touched != self._touched, touched
        return rang

    def install(self) -> None:
        """Create the wakeup file and watch it, unless it is being watched."""
        try:
            found = os.lstat(self._file.wakeup)
            if self._watched == (found.st_dev, found.st_ino):
                return
        except OSError:
            pass
        self._watched = None
        try:
            descriptor = open_beside(self._file, self._file.wakeup)
            created = os.fstat(descriptor)
            os.close(descriptor)
            if self._inotify:
                self._watch()
            self._watched = (created.st_dev, created.st_ino)
        except OSError as error:
            _warn_once("Cannot watch %s (%s); polling the table instead.", self._file.wakeup, error)

    def _watch(self) -> None:
        from inotify_simple import flags

        gone = flags.DELETE_SELF | flags.MOVE_SELF
        self._gone = int(gone | flags.IGNORED)  # the enum's operators are slow
        try:
            self._inotify.add_watch(self._file.wakeup, flags.ATTRIB | gone | flags.DONT_FOLLOW)
        except OSError as error:
            raise OSError(_reason(error)) from error

    def close(self) -> None:
        """Close all descriptors."""
        super().close()
        if self._inotify:
            self._inotify.close()


def _inotify() -> Any:
    """Return an INotify object; None, with a warning, if inotify does not work here."""
    try:
        from inotify_simple import INotify

        return INotify(nonblocking=True)
    except (ImportError, OSError, AttributeError) as error:
        _warn_once("Cannot use inotify (%s); polling instead.", _reason(error))
        return None


def _reason(error: Exception) -> str:
    """Return the message of inotify's error, and which system limit to raise."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC:
        return f"{error}: this user has no watches left; raise fs.inotify.max_user_watches with sysctl"
    if number == errno.EMFILE:
        limit = "raise fs.inotify.max_user_instances with sysctl, or ulimit -n"
        return f"{error}: this user has no inotify instances left, or this process no descriptors; {limit}"
    return str(error)
