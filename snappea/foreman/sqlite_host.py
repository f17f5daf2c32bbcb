"""The Host for SQLite: the files beside the database, and their maintenance while the Foreman works."""

import logging
import os
import sqlite3
import time
from collections.abc import Collection, Sequence
from logging import ERROR, INFO, WARNING
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import Settings
from ..errors import CannotStart
from ..log import say
from ..queue import logbook, recovery
from ..queue.database import FAULTS, MEGABYTE, PAGE_SIZE, RawConnection, data_version, file_of, raw
from ..queue.files import NETWORK_FILE_SYSTEMS, QueueFile, file_system, lockers
from ..queue.lock import Lock, require_same
from ..queue.logbook import Logbook
from ..queue.records import Recovered
from ..queue.rescue import rescue
from ..queue.wakeup import FileBell
from ..workers.processes.fork_server import ForkServer
from .host import Host
from .systemd import Supervisor

#: How long the Foreman waits for a write lock at a time, in milliseconds: short, to handle signals soon.
BUSY_TIMEOUT = 500
#: The size of the WAL from which a commit of the Foreman checkpoints, in bytes: before other processes must.
CHECKPOINT_FROM = 3 * MEGABYTE
#: How often to check the files, in seconds: while tasks run or have just run, and while nothing changes.
LOOK_EVERY = 1.0
IDLE_LOOK_EVERY = 10.0
#: The idle time before a checkpoint, in seconds.
REST = 5.0
#: A larger write-ahead log is checkpointed and truncated even while there is work, in bytes.
LARGE_WAL = 8 * MEGABYTE
#: How soon a failed truncation is retried, in seconds, and how many times: writers block it, too.
TRY_AGAIN = 0.1
QUICK_TRIES = 10
#: When to warn that a large write-ahead log cannot be truncated, and how often, in seconds.
HELD_AFTER = 10.0
WARN_EVERY = 60.0
#: The bytes of the -shm file that SQLite's readers lock.
READ_LOCKS = {str(120 + 3 + reader) for reader in range(5)}


def local_file(connection: BaseDatabaseWrapper) -> QueueFile:
    """Return the file of the queue's database. Raises CannotStart if no Foreman can work with it."""
    file = file_of(connection)
    if file is None:
        raise CannotStart("The queue's database is in memory, where no other process can reach it.")
    if (kind := file_system(file.path)) in NETWORK_FILE_SYSTEMS:
        raise CannotStart(
            f"{file.path} is on a network file system ({kind}), where SQLite's WAL mode loses data. "
            "Put the queue's database on a local disk."
        )
    return file


class SqliteHost(Host):
    """The Host for a SQLite database, with files beside it.

    It restores the wakeup file, keeps the write-ahead log small, and notices what cannot be repaired.
    """

    def __init__(
        self, connection: BaseDatabaseWrapper, settings: Settings, fork_server: ForkServer | None
    ) -> None:
        super().__init__(connection, settings, fork_server)
        self.file = local_file(connection)
        self.name = self.file.path
        self._seen: object = None
        self._supervisor = Supervisor()
        self._held_since = 0.0
        self._tries = 0
        self._warn_at: float | None = None  # None: the write-ahead log is not held
        self._checkpointed = -1.0  # the time of the last work that was checkpointed

    def enter(self, waits: bool = False) -> None:
        """Take the lock. Raises CannotStart if another Foreman has it."""
        self.lock = Lock(self.file, waits)
        if self.fork_server:
            self.fork_server.keep(self.lock.descriptor)

    def recover(self, db: RawConnection, moment: str) -> list[Recovered]:
        """Settle the tasks that a dead Foreman left running, by its logbook."""
        return recovery.recover(db, moment, logbook.read(self.file))

    def equip(self) -> None:
        """Create the bell and the logbook."""
        self.bell: FileBell = FileBell(self.file)
        self.logbook = Logbook(self.file, self._cells())
        self._configure()

    def _configure(self) -> None:
        self._db = raw(self.connection)
        self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_FROM // PAGE_SIZE}")
        connection: Any = self.connection
        connection.snappea_writing.syncs_findings = False  # a round that only reads does not wait

    def facts(self) -> str:
        """Return the durability of a commit, and SQLite's version."""
        return f"synchronous {self.settings.SYNCHRONOUS}, SQLite {sqlite3.sqlite_version}"

    def require_intact(self) -> None:
        """End the process immediately if a task has closed the lock's descriptor."""
        require_same(self.lock.descriptor, self.lock.identity)

    check = require_intact

    def may_have_news(self) -> bool:
        """Return whether another process has written, or made or deleted files, since the last call."""
        seen, self._seen = self._seen, (data_version(self.connection), self.file.state())
        return self._seen != seen

    def tell(self, stuck: Collection[int], queues: Sequence[str], strict: bool) -> None:
        """Write the Foreman's state into the lock file."""
        self.lock.tell(workers=self.settings.NUM_WORKERS, stuck=stuck, queues=queues, strict=strict)

    def leave_to_parent(self) -> None:
        """Close the lock's descriptor, so that the child does not hold the lock."""
        self.lock.close()

    def leave(self) -> None:
        """Do nothing: the lock ends with the process."""

    def look(self, worked_at: float, is_idle: bool = False) -> str:
        """Check the files, and notify systemd's watchdog."""
        here = time.monotonic()
        self.next_look = here + LOOK_EVERY
        self._supervisor.reassure()
        if self.file.is_gone():
            if (path := self.file.lost()) == self.file.path:
                return f"{path} was deleted or replaced"
            self._move(path)
        if self.lock.is_lost():
            return f"{self.file.lock} was removed, and another Foreman may have started"
        self.bell.install()
        if self.file.wal_size() > LARGE_WAL:
            self._note_starvation(is_held=self._checkpoint("TRUNCATE")[0] != 0)
        elif self._checkpointed == worked_at and is_idle and not self._supervisor.watches:
            self.next_look = here + IDLE_LOOK_EVERY
        elif self._checkpointed != worked_at and here - worked_at > REST:
            _is_busy, logged, written = self._checkpoint("PASSIVE")
            if logged == written:
                self._checkpointed = worked_at
        return ""

    def _move(self, path: str) -> None:
        """Continue with a copy of the database after a file of it was deleted. End the process if that fails.

        Other processes may already use new files, so nothing more must be written to the old ones.
        """
        say(ERROR, "%s was deleted or replaced while it was open.", path)
        why: object = "other processes may already use new files"
        try:
            is_own = self.connection.alias != DEFAULT_DB_ALIAS
            if is_own and self.connection.connection and rescue(self.connection.connection, self.file):
                self.connection.close()
                self.connection.ensure_connection()
                self.file = local_file(self.connection)
                self._configure()
                say(WARNING, "All committed data is in a new %s; the Foreman continues.", self.file.path)
                return
        except (OSError, *FAULTS) as error:
            why = error
        say(ERROR, "The Foreman exits immediately; start it again (%s).", why)
        logging.shutdown()
        os._exit(1)

    def _checkpoint(self, mode: str) -> tuple[int, int, int]:
        """Checkpoint the write-ahead log, and return SQLite's answer.

        PASSIVE keeps the file's length: overwriting it takes half the fsync time of making it grow.
        """
        self._db.execute("PRAGMA busy_timeout = 20")  # writers are blocked while this waits for readers
        try:
            found: tuple[int, int, int] = self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            return found
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")

    def _note_starvation(self, is_held: bool) -> None:
        """Log a warning if a long-running read blocks the truncation of a large write-ahead log."""
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
                "The write-ahead log has grown to %d MB and could not be checkpointed for %.0f s: a "
                "long-running read blocks the checkpoint (pid %s). End that transaction or process.",
                self.file.wal_size() // MEGABYTE,
                here - self._held_since,
                ", ".join(map(str, readers(self.file))) or "unknown",
            )


def readers(file: QueueFile) -> list[int]:
    """Return the pids of other processes that read the database, as far as the system reports them."""
    return lockers(f"{file.path}-shm", READ_LOCKS)
