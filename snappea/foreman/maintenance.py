"""Looks after the queue's files while the Foreman works."""

import logging
import os
import time
from logging import ERROR, INFO, WARNING

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper

from ..errors import CannotStart
from ..log import say
from ..queue.database import FAULTS, MEGABYTE, PAGE_SIZE, file_of, raw
from ..queue.files import NETWORK_FILE_SYSTEMS, QueueFile, file_system, lockers
from ..queue.lock import Lock
from ..queue.rescue import rescue
from ..queue.wakeup import FileBell
from ..workers.processes.fork_server import ForkServer
from .systemd import Supervisor

#: How long the Foreman waits for another process's write lock before it looks up, in milliseconds:
#: short, so that a signal is handled soon.
BUSY_TIMEOUT = 500
#: From what size on a commit of the Foreman makes a checkpoint, in bytes: before other processes need to.
CHECKPOINT_FROM = 3 * MEGABYTE
#: How often the files are checked, in seconds.
LOOK_EVERY = 1.0
#: A checkpoint is made after so many seconds without work.
REST = 5.0
#: A larger write-ahead log is written back even while there is work, and truncated, in bytes.
LARGE_WAL = 8 * MEGABYTE
#: How soon a failed truncation is retried, in seconds, and how many times: writers block it as well.
TRY_AGAIN = 0.1
QUICK_TRIES = 10
#: After how long a large write-ahead log that cannot be truncated is logged, in seconds; and how often then.
HELD_AFTER = 10.0
WARN_EVERY = 60.0
#: The bytes of the -shm file that SQLite's readers lock.
READ_LOCKS = {str(120 + 3 + reader) for reader in range(5)}


def local_file(connection: BaseDatabaseWrapper) -> QueueFile:
    """Return the file of the queue's database. Raises CannotStart if no Foreman could work with it."""
    file = file_of(connection)
    if file is None:
        raise CannotStart("The queue's database is in memory, where no other process can reach it.")
    if (kind := file_system(file.path)) in NETWORK_FILE_SYSTEMS:
        raise CannotStart(
            f"{file.path} is on a network file system ({kind}), where SQLite's WAL mode loses data. "
            "Put the queue's database on a local disk."
        )
    return file


class Maintenance:
    """Restores the wakeup file, keeps the write-ahead log small, and notices what cannot be repaired.

    Each look also tells systemd that the Foreman is at work.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        file: QueueFile,
        lock: Lock,
        bell: FileBell,
        fork_server: ForkServer | None = None,
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._bell = bell
        self._fork_server = fork_server
        self._supervisor = Supervisor()
        self._held_since = 0.0
        self._tries = 0
        self._warn_at: float | None = None  # None: the write-ahead log is not held
        self._checkpointed = -1.0  # all work until then has been checkpointed
        #: When look() is to be called again, by time.monotonic().
        self.next_look = 0.0
        self._use(file)

    def _use(self, file: QueueFile) -> None:
        self._file = file
        self._db = raw(self._connection)
        self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_FROM // PAGE_SIZE}")

    def look(self, worked_at: float) -> str:
        """Check the files, and return why the Foreman must stop, or "" if it need not.

        `worked_at`: when the last round was, by time.monotonic(). Raises sqlite3.Error.
        """
        here = time.monotonic()
        self.next_look = here + LOOK_EVERY
        self._supervisor.reassure()
        if self._file.is_gone():
            if (path := self._file.lost()) == self._file.path:
                return f"{path} was deleted or replaced"
            self._move(path)
        if self._lock.is_lost():
            return f"{self._file.lock} was removed, and another Foreman may have started"
        if self._fork_server and self._fork_server.is_gone():
            return "the fork server has ended, and a process with threads cannot make another"
        self._bell.install()
        if self._file.wal_size() > LARGE_WAL:
            self._note_starvation(is_held=self._checkpoint("TRUNCATE")[0] != 0)
        elif self._checkpointed != worked_at and here - worked_at > REST:
            _is_busy, logged, written = self._checkpoint("PASSIVE")
            if logged == written:
                self._checkpointed = worked_at
        return ""

    def _move(self, path: str) -> None:
        """Continue with a copy of the database if a file of it was deleted; end the process if that fails.

        Other processes may have written to new files by now: it must write nothing more to the old ones.
        """
        say(ERROR, "%s was deleted or replaced while it was open.", path)
        why: object = "other processes may have gone on with new files"
        try:
            is_own = self._connection.alias != DEFAULT_DB_ALIAS
            if is_own and self._connection.connection and rescue(self._connection.connection, self._file):
                self._connection.close()
                self._connection.ensure_connection()
                self._use(local_file(self._connection))
                say(WARNING, "All that was committed is in a new %s; the work goes on.", self._file.path)
                return
        except (OSError, *FAULTS) as error:
            why = error
        say(ERROR, "The Foreman ends at once, and is to be started again (%s).", why)
        logging.shutdown()
        os._exit(1)

    def _checkpoint(self, mode: str) -> tuple[int, int, int]:
        """Write the write-ahead log into the database, as far as no process reads what that would replace.

        PASSIVE leaves the file as long as it is: a commit that overwrites needs half the fsync of one
        that makes the file grow.
        """
        self._db.execute("PRAGMA busy_timeout = 20")  # writers wait for as long as this waits for readers
        try:
            found: tuple[int, int, int] = self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            return found
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")

    def _note_starvation(self, is_held: bool) -> None:
        """Log it if a large log cannot be truncated for long, because a process does not end reading."""
        here = time.monotonic()
        self._tries = self._tries + 1 if is_held else 0
        if 0 < self._tries < QUICK_TRIES:
            self.next_look = here + TRY_AGAIN
        if not is_held:
            if self._warn_at is not None and here >= self._held_since + HELD_AFTER:
                say(INFO, "The write-ahead log could be checkpointed again.")
            self._warn_at = None
        elif self._warn_at is None:
            self._held_since, self._warn_at = here, here + HELD_AFTER
        elif here >= self._warn_at:
            self._warn_at = here + WARN_EVERY
            say(
                WARNING,
                "The write-ahead log has grown to %d MB, and cannot be checkpointed for %.0f s: a long "
                "read of the database blocks that (pid %s). End that transaction, or that process.",
                self._file.wal_size() // MEGABYTE,
                here - self._held_since,
                ", ".join(map(str, readers(self._file))) or "unknown",
            )


def readers(file: QueueFile) -> list[int]:
    """Return the pids of the other processes that are reading the database, as far as the system tells."""
    return lockers(f"{file.path}-shm", READ_LOCKS)
