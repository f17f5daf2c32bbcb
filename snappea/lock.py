"""One Foreman per queue: an flock beside the database.

The kernel gives the lock back when the process dies, however it dies: nothing goes stale.
"""

import fcntl
import os
import socket
from datetime import datetime

from .database import QueueFile, open_beside
from .errors import CannotStart


class Lock:
    """Held from its making until close(), or the end of the process."""

    def __init__(self, file: QueueFile) -> None:
        """Take the lock. Raises CannotStart, with the name of its holder, if it is taken."""
        self._path = file.lock
        try:
            self._descriptor = open_beside(file, file.lock)
        except OSError as error:
            raise CannotStart(f"Cannot open {file.lock}: {error}.") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise CannotStart(
                f"Another Foreman is at work on {file.path}: {holder or 'it has just started'}. "
                "One is enough; stop that one first."
            ) from None
        self._sign()

    def _sign(self) -> None:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        holder = f"pid {os.getpid()} on {socket.gethostname()}, since {since}\n"
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, holder.encode(), 0)

    def is_lost(self) -> bool:
        """Tell whether somebody removed the file, so that another Foreman could lock a new one."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return True

    def close(self) -> None:
        """Give the lock back. In a child that a task forked: give up its copy, which would keep it."""
        os.close(self._descriptor)
