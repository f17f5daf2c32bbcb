"""One Foreman per queue: an flock beside the database.

The kernel gives the lock back when the process dies, however it dies: nothing goes stale. In the file stands
who holds it, and how he is, for other processes to read.
"""

import json
import logging
import os
import re
import socket
import time
from datetime import datetime
from logging import ERROR

try:
    import fcntl
except ImportError:  # no Unix: there is no Foreman, and so no lock
    fcntl = None  # type: ignore[assignment]

from ..errors import CannotStart
from ..log import say
from .clock import steady_clock
from .files import QueueFile, open_beside, open_regular
from .records import ForemanInfo

#: How long to wait for the end of what a dead Foreman has left: its fork server and children, in seconds.
PATIENCE = 10.0
#: How long to try for when its holder lives: somebody may just be looking whether it is held, in seconds.
GLIMPSE = 0.1
_SIZE = 1000  # of the file, or more: always written whole
_LARGEST = 1_000_000

_SIGNATURE = re.compile(r"pid (\d+) on (\S+), since (.+)")


def holder(file: QueueFile) -> ForemanInfo | None:
    """Return the Foreman at work on a queue; None if there is none."""
    if fcntl is None:
        return None
    try:
        descriptor = open_regular(file.lock, os.O_RDONLY)
    except OSError:
        return None
    try:
        signature, _, state = os.pread(descriptor, _LARGEST, 0).decode(errors="replace").partition("\n")
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError:  # it is taken
        return _parse(signature, state) if _is_alive(signature, state) else None
    finally:
        os.close(descriptor)


def _parse(signature: str, state: str) -> ForemanInfo | None:
    found = _SIGNATURE.match(signature)
    try:
        told = json.loads(state.strip() or "{}")
        since = datetime.fromisoformat(found[3]) if found else None
    except ValueError:
        return None  # it is just signing
    if found is None or since is None:
        return None
    is_here = found[2] == socket.gethostname() and told.get("pids") == pid_namespace()
    return ForemanInfo(int(found[1]), found[2], since, told.get("workers", 0), told.get("stuck", []), is_here)


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
        self._since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        self.tell()
        self._identity = os.fstat(self.descriptor)

    def _is_taken(self) -> bool:
        """Take the lock if it is to be had, and tell whether it was."""
        began = steady_clock()
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                signature, _, state = (
                    os.pread(self.descriptor, _SIZE, 0).decode(errors="replace").partition("\n")
                )
                if steady_clock() - began >= (GLIMPSE if _is_alive(signature, state) else PATIENCE):
                    return False
                time.sleep(0.01)

    def _holder(self) -> str:
        return os.pread(self.descriptor, 200, 0).decode(errors="replace").partition("\n")[0]

    def tell(self, **state: object) -> None:
        """Write who holds the lock, and how he is: `workers`, and `stuck`, the ids of tasks."""
        signature = f"pid {os.getpid()} on {socket.gethostname()}, since {self._since}"
        told = json.dumps({"pids": pid_namespace(), **state})
        note = f"{signature}\n{told}".ljust(_SIZE).encode()
        os.pwrite(self.descriptor, note, 0)
        os.ftruncate(self.descriptor, len(note))

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
        require_same(self.descriptor, self._identity)

    def close(self) -> None:
        """Give the lock back. In a child that a task forked: give up its copy, which would keep it."""
        os.close(self.descriptor)


def require_same(descriptor: int, identity: os.stat_result) -> None:
    """End the process at once if a descriptor does not lead to where it did."""
    try:
        if os.path.samestat(os.fstat(descriptor), identity):
            return
    except OSError:
        pass
    say(ERROR, "A task has closed the Foreman's descriptors; it ends at once, and is to be started anew.")
    logging.shutdown()
    os._exit(1)


def pid_namespace() -> str:
    """Return which processes the pids seen here belong to; "" where the kernel does not say."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _is_alive(signature: str, state: str) -> bool:
    """Tell whether the process that signed as holder of the lock may be alive.

    The lock is held, so the answer is yes, unless the pid can be looked up here and is gone: then only the
    children of that process still hold it.
    """
    holder = _parse(signature, state)
    if holder is None or not holder.is_here:
        return True  # it is just signing, or its pid means another process here
    pid = holder.pid
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        pass
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:  # /proc may hide the processes of other users
        return True
