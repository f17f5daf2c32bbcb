"""One Foreman per queue: an flock on a file beside the database.

The kernel releases the lock when the process dies, however it dies, so nothing goes stale. The holder writes
into the file which process it is and how it is, for other processes to read.
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

#: How long to wait for the fork server and children of a dead Foreman to release the lock, in seconds.
PATIENCE = 10.0
#: How long to try while the holder lives, in seconds: another process may just test whether the lock is held.
GLIMPSE = 0.1
_SIZE = 1000  # of the note, or more: always written whole
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
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError:  # it is held
        found = _read_note(descriptor)
        return found if found and _is_alive(found) else None
    finally:
        os.close(descriptor)


def _read_note(descriptor: int) -> ForemanInfo | None:
    """Return the Foreman that wrote the lock file last; None if a Foreman is just writing it."""
    try:
        note = os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")
        signature, _, state = note.partition("\n")
        pid, host, since = _SIGNATURE.fullmatch(signature).groups()  # type: ignore[union-attr]
        told = json.loads(state)
        is_here = host == socket.gethostname() and told.get("pids") == _pid_namespace()
        rest = told.get("workers", 0), told.get("stuck", []), is_here
        return ForemanInfo(int(pid), host, datetime.fromisoformat(since), *rest)
    except (AttributeError, OSError, ValueError):
        return None


class Lock:
    """Held from its creation until close(), or until the process ends."""

    def __init__(self, file: QueueFile) -> None:
        """Take the lock. Raises CannotStart, with the name of its holder, if another process keeps it."""
        self._path = file.lock
        try:
            self.descriptor = open_beside(file, file.lock)
        except OSError as error:
            raise CannotStart(f"Cannot open {file.lock}: {error}.") from error
        if not self._acquire():
            found = _read_note(self.descriptor)
            os.close(self.descriptor)
            who = f"pid {found.pid} on {found.host}, since {found.since}" if found else "it has just started"
            raise CannotStart(
                f"Another Foreman is at work on {file.path}: {who}. One is enough; stop that one first."
            )
        self._since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        self.tell()
        self.identity = os.fstat(self.descriptor)

    def _acquire(self) -> bool:
        """Take the lock if it is released in time. The children of a dead holder release it when they end."""
        began = steady_clock()
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                found = _read_note(self.descriptor)
                is_dead = found is not None and not _is_alive(found)
                if steady_clock() - began >= (PATIENCE if is_dead else GLIMPSE):
                    return False
                time.sleep(0.01)

    def tell(self, **state: object) -> None:
        """Write which process holds the lock, and its state: `workers`, and `stuck`, the ids of tasks."""
        signature = f"pid {os.getpid()} on {socket.gethostname()}, since {self._since}"
        told = json.dumps({"pids": _pid_namespace(), **state})
        note = f"{signature}\n{told}".ljust(_SIZE).encode()
        os.pwrite(self.descriptor, note, 0)
        os.ftruncate(self.descriptor, len(note))

    def is_lost(self) -> bool:
        """Tell whether the file was removed, so that another Foreman could lock a new one."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self.descriptor))
        except OSError:
            return True

    def close(self) -> None:
        """Release the lock; in a child that a task forked, only the copy that would keep it held."""
        os.close(self.descriptor)


def require_same(descriptor: int, identity: os.stat_result) -> None:
    """End the process at once if a descriptor no longer refers to the same file.

    A task has closed it, perhaps with all others. SQLite would write into what gets its descriptor next.
    """
    try:
        if os.path.samestat(os.fstat(descriptor), identity):
            return
    except OSError:
        pass
    say(ERROR, "A task has closed the Foreman's descriptors. The Foreman exits at once; start it again.")
    logging.shutdown()
    os._exit(1)


def _pid_namespace() -> str:
    """Return which processes the pids seen here belong to; "" where the kernel does not say."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _is_alive(info: ForemanInfo) -> bool:
    """Tell whether the holder of the lock may be alive; if not, only its children still hold the lock."""
    if not info.is_here:
        return True  # its pid means another process here
    try:
        os.kill(info.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        pass
    try:
        with open(f"/proc/{info.pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:  # /proc may hide the processes of other users
        return True
