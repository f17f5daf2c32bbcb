"""One Foreman per queue: an flock on a file beside the database.

The kernel releases the lock however the process dies, so it never goes stale. The holder writes its pid, host
and state into the file for other processes.
"""

import json
import logging
import os
import re
import signal
import socket
import time
from datetime import datetime
from logging import ERROR, INFO

try:
    import fcntl
except ImportError:  # without Unix there is no Foreman, and no lock
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

from ..errors import CannotStart
from ..log import say
from .clock import steady_clock
from .files import QueueFile, is_lost, open_beside, open_regular
from .records import ForemanInfo

#: How long to wait for the fork server and children of a dead Foreman to release the lock, in seconds.
PATIENCE = 10.0
#: How long to retry otherwise, in seconds: another process may only be testing the lock, in holder().
GLIMPSE = 0.1
_SIZE = 1000  # the note's length at least, so that one write replaces it
_SIGNATURE = re.compile(r"pid (\d+) on (\S+), since (.+)")


def holder(file: QueueFile) -> ForemanInfo | None:
    """Return the Foreman that holds a queue's lock; None if none does."""
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
    """Return the Foreman that the lock file names; None if the note is incomplete."""
    try:
        note = os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")
        signature, _, state = note.partition("\n")
        pid, host, since = _SIGNATURE.fullmatch(signature).groups()  # type: ignore[union-attr]  # caught below
        told = json.loads(state)
        is_here = host == socket.gethostname() and told.get("pids") == _pid_namespace()
        rest = told.get("workers", 0), told.get("stuck", []), is_here, None
        serves = told.get("queues", []), told.get("strict", False)
        return ForemanInfo(int(pid), host, datetime.fromisoformat(since), *rest, *serves)
    except (AttributeError, OSError, ValueError):
        return None


class Lock:
    """Held from its creation until close() or the end of the process.

    `waits`: until the process that holds it ends. Otherwise, raises CannotStart, with the name of the holder.
    """

    def __init__(self, file: QueueFile, waits: bool = False) -> None:
        self._path = file.lock
        try:
            self.descriptor = open_beside(file, file.lock)
        except OSError as error:
            raise CannotStart(f"Cannot open {file.lock}: {error}.") from error
        if not self._acquire():
            found = _read_note(self.descriptor)
            it = f"pid {found.pid} on {found.host}, since {found.since}" if found else "it has just started"
            another = f"Another Foreman is at work on {file.path}: {it}."
            if not waits:
                os.close(self.descriptor)
                raise CannotStart(f"{another} Stop that one first.")
            say(INFO, "%s This one takes over when it ends.", another)
            # a signal ends the wait, and the process: it has not begun to count signals
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self._since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        self.tell()
        self.identity = os.fstat(self.descriptor)

    def _acquire(self) -> bool:
        """Take the lock; wait for the children of a dead holder, which release it when they end."""
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
        """Write the holder and its state: the fields of ForemanInfo from `workers` on."""
        signature = f"pid {os.getpid()} on {socket.gethostname()}, since {self._since}"
        told = json.dumps({"pids": _pid_namespace(), **state})
        note = f"{signature}\n{told}".ljust(_SIZE).encode()
        os.pwrite(self.descriptor, note, 0)
        os.ftruncate(self.descriptor, len(note))

    def is_lost(self) -> bool:
        """Tell whether the file was removed, so that another Foreman could lock a new one."""
        return is_lost(self._path, (self.identity.st_dev, self.identity.st_ino))

    def close(self) -> None:
        """Release the lock. In a child that a task forked, close its copy, which would keep the lock held."""
        os.close(self.descriptor)


def require_same(descriptor: int, identity: os.stat_result) -> None:
    """End the process at once if a task has closed a descriptor, perhaps along with all others.

    SQLite would write into whichever file gets its descriptor next.
    """
    try:
        if os.path.samestat(os.fstat(descriptor), identity):
            return
    except OSError:
        pass
    say(ERROR, "A task has closed the Foreman's descriptors. The Foreman exits at once; restart it.")
    logging.shutdown()
    os._exit(1)


def _pid_namespace() -> str:
    """Return the pid namespace of this process; "" if the kernel does not tell."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _is_alive(info: ForemanInfo) -> bool:
    """Tell whether the holder may be alive; if not, only its children still hold the lock."""
    if not info.is_here:
        return True  # its pid means nothing here
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
