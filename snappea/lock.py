"""One Foreman per queue: an flock beside the database.

The kernel gives the lock back when the process dies, however it dies: nothing goes stale.
"""

import fcntl
import logging
import os
import re
import socket
import time
from datetime import datetime
from logging import ERROR

from .database import QueueFile, open_beside
from .errors import CannotStart
from .log import say

#: How long to wait for the end of what a dead Foreman has left: its fork server and children, in seconds.
PATIENCE = 10.0


class Lock:
    """Held from its making until close(), or the end of the process."""

    def __init__(self, file: QueueFile) -> None:
        """Take the lock. Raises CannotStart, with the name of its holder, if it is taken.

        If that holder is dead, what is left of it has it: the lock is to be had in a moment.
        """
        self._path = file.lock
        try:
            self.descriptor = open_beside(file, file.lock)
        except OSError as error:
            raise CannotStart(f"Cannot open {file.lock}: {error}.") from error
        if not self._is_taken():
            holder = self._holder()
            os.close(self.descriptor)
            raise CannotStart(
                f"Another Foreman is at work on {file.path}: {holder or 'it has just started'}. "
                "One is enough; stop that one first."
            )
        self._sign()
        self._identity = os.fstat(self.descriptor)

    def _is_taken(self) -> bool:
        """Take the lock if it is to be had, and tell whether it was."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                if _is_alive(self._holder()) or time.monotonic() >= give_up:
                    return False
                time.sleep(0.01)

    def _holder(self) -> str:
        return os.pread(self.descriptor, 200, 0).decode(errors="replace").strip()

    def _sign(self) -> None:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        holder = f"pid {os.getpid()} on {socket.gethostname()}, since {since}\n"
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, holder.encode(), 0)

    def is_lost(self) -> bool:
        """Tell whether somebody removed the file, so that another Foreman could lock a new one."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self.descriptor))
        except OSError:
            return True

    def require_open(self) -> None:
        """End the process at once if a task has closed the descriptor, and so perhaps all others.

        SQLite would write into a file that took the place of the database's. Takes a microsecond.
        """
        try:
            if os.path.samestat(os.fstat(self.descriptor), self._identity):
                return
        except OSError:
            pass
        say(ERROR, "A task has closed the Foreman's descriptors; it ends at once, and is to be started anew.")
        logging.shutdown()
        os._exit(1)

    def close(self) -> None:
        """Give the lock back. In a child that a task forked: give up its copy, which would keep it."""
        os.close(self.descriptor)


def _is_alive(holder: str) -> bool:
    """Tell whether the process that signed as holder of the lock may be alive."""
    found = re.match(r"pid (\d+) on (\S+),", holder)
    if found is None or found[2] != socket.gethostname():
        return True  # it is just signing, or its pids are not ours
    try:
        with open(f"/proc/{found[1]}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
