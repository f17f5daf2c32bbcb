"""The Maintenance: looks after the queue's files while the Foreman works."""

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

#: How long the Foreman waits for somebody else's write lock before it looks up, in milliseconds:
#: short, so that a signal is heard soon.
BUSY_TIMEOUT = 500
#: From what size on a commit of the Foreman folds the write-ahead log in, in bytes: before others need to.
FOLD_FROM = 3 * MEGABYTE
#: How often the files are looked at, in seconds.
LOOK_EVERY = 1.0
#: After so many seconds of rest the write-ahead log is folded into the database.
REST = 5.0
#: A larger write-ahead log is folded in even while there is work, and cut off, in bytes.
LARGE_WAL = 8 * MEGABYTE
#: How soon, and how often, it is tried again to cut it off, in seconds: writers get in the way as well.
TRY_AGAIN = 0.1
QUICK_TRIES = 10
#: After how long a large write-ahead log that cannot be cut off is worth a word, in seconds; and the next.
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
    """Puts the wakeup file back, keeps the write-ahead log small, notices what cannot be mended.

    And tells systemd, by looking, that the Foreman is at work.
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
        self.next_look = 0.0
        self.note_work()
        self._use(file)

    def _use(self, file: QueueFile) -> None:
        self._file = file
        self._db = raw(self._connection)
        self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {FOLD_FROM // PAGE_SIZE}")

    def note_work(self) -> None:
        """Take notice of a round: this is no time of rest."""
        self._last_work = time.monotonic()
        self._is_checkpointed = False

    def look(self) -> str:
        """Look at the files, and return why the Foreman must stop, or "" if it need not.

        Raises sqlite3.Error if the database does not let itself be looked after.
        """
        self.next_look = time.monotonic() + LOOK_EVERY
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
            self._fold("TRUNCATE")
        elif not self._is_checkpointed and time.monotonic() - self._last_work > REST:
            self._fold("PASSIVE")
        return ""

    def _move(self, path: str) -> None:
        """Go on with a copy of the database if one of its files was deleted; end the process if that fails.

        What it has open may be behind what others have written by now: it must write nothing more.
        """
        say(ERROR, "%s was deleted or replaced while it was open.", path)
        why: object = "other processes may have gone on with new files"
        try:
            is_own = self._connection.alias != DEFAULT_DB_ALIAS
            if is_own and self._connection.connection and rescue(self._connection.connection, self._file):
                self._connection.close()
                self._connection.ensure_connection()
                self._use(local_file(self._connection))
                say(
                    WARNING,
                    "All that was committed is in a new %s; the work goes on.",
                    self._file.path,
                )
                return
        except (OSError, *FAULTS) as error:
            why = error
        say(ERROR, "The Foreman ends at once, and is to be started again (%s).", why)
        logging.shutdown()
        os._exit(1)

    def _fold(self, mode: str) -> None:
        """Write the write-ahead log into the database, as far as nobody reads what it would replace.

        PASSIVE leaves the file as long as it is: a commit that overwrites needs half the fsync of one
        that makes the file grow.
        """
        self._db.execute("PRAGMA busy_timeout = 20")  # writers wait for as long as this waits for readers
        try:
            is_busy, logged, checkpointed = self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            self._is_checkpointed = logged == checkpointed
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        if mode == "TRUNCATE":
            self._note_starvation(bool(is_busy))

    def _note_starvation(self, is_held: bool) -> None:
        """Say so if a large log cannot be cut off for long, because somebody does not end reading."""
        here = time.monotonic()
        self._tries = self._tries + 1 if is_held else 0
        if 0 < self._tries < QUICK_TRIES:
            self.next_look = here + TRY_AGAIN
        if not is_held:
            if self._warn_at is not None and here >= self._held_since + HELD_AFTER:
                say(INFO, "The write-ahead log could be folded in again.")
            self._warn_at = None
        elif self._warn_at is None:
            self._held_since, self._warn_at = here, here + HELD_AFTER
        elif here >= self._warn_at:
            self._warn_at = here + WARN_EVERY
            say(
                WARNING,
                "The write-ahead log has grown to %d MB, and cannot be folded in for %.0f s: somebody reads "
                "the database all that time (pid %s). End that transaction, or that process.",
                self._file.wal_size() // MEGABYTE,
                here - self._held_since,
                ", ".join(map(str, readers(self._file))) or "unknown",
            )


def readers(file: QueueFile) -> list[int]:
    """Return the pids of the other processes that are reading the database; none where that is not told."""
    return lockers(f"{file.path}-shm", READ_LOCKS)
