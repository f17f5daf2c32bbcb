"""Writers take turns, and do not hold SQLite's write lock while they wait for the disk.

SQLite's lock is not fair: a writer that finds it taken sleeps up to 100 ms between attempts, while
others take it. Here a writer first gets an flock, which it tries each millisecond.

With FULL, SQLite syncs the write-ahead log within each commit, so processes wait for the disk one after
another. Here a commit only writes. Its process syncs the log afterwards, before it acknowledges anything, and
the file system lets all processes wait together.
"""

import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from django.db import OperationalError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

from ..errors import AlreadyEnqueued
from .files import QueueFile, identity_of, open_regular

#: In seconds. Less is not faster: each attempt wakes a process.
TRY_EVERY = 0.001
#: After so many seconds a writer does without a turn: the one that has it may be stopped.
LONGEST_WAIT = 1.0
#: For so many seconds after that, it takes a turn only if it need not wait.
IMPATIENT = 5.0
#: How many positions may mark a descriptor as ours, so that no other file has the same by chance.
MARKS = 2**31
_TRY = fcntl.LOCK_EX | fcntl.LOCK_NB if fcntl else 0


class NotSynced(OperationalError):
    """A transaction was committed, but the disk refused it: after a power cut it may be gone."""


def writes(db: sqlite3.Connection, file: QueueFile, defers: bool) -> "Writes | None":
    """Return a Writes for a connection to a database of our own; None without fcntl or WAL.

    `defers`: sync after a commit, not in it, if the system can.
    """
    if file.wal is not None and fcntl is not None:
        with suppress(OSError):
            return Writes(db, file, defers and hasattr(os, "fdatasync"))
    return None


class Writes:
    """Surrounds a transaction, or one statement outside of a transaction.

    It waits its turn, and is durable at its end. Inside a transaction that is already open, as in `atomic()`,
    it does nothing: Django commits with FULL.

    Nothing depends on turns, as SQLite has its own lock, and the kernel ends the turn of a process that is
    killed.

    No checkpoint can lose a commit that is not yet synced. With NORMAL, too, SQLite syncs the log before it
    copies it into the database, and the database before the log starts over; and it syncs the header of each
    log, with the directory, before the first commit to it.
    """

    #: Whether to sync a transaction that wrote nothing. It may have found what another process has committed,
    #: but not yet synced, such as an identical call.
    syncs_findings = True

    def __init__(self, db: sqlite3.Connection, file: QueueFile, defers: bool) -> None:
        self._db, self._defers = db, defers
        # One for each connection, and kept open. Threads wait for each other, too, and Linux reports a failed
        # write once to each open descriptor, and never to one that is opened later. SQLite holds no locks on
        # this file that close() would drop.
        self._log = open_regular(f"{file.path}-wal", os.O_RDONLY)
        if identity_of(self._log) != file.wal:
            os.close(self._log)
            raise OSError(errno.EBADF, "the write-ahead log was replaced")
        # It is never read from, so its position tells whether it is still the same. After fstat(), the next
        # write would take 25 us longer, because Linux gives the file a new time.
        self._mark = os.lseek(self._log, secrets.randbelow(MARKS), os.SEEK_SET)
        self._impatient_until = 0.0
        self._is_deferred = False  # synchronous is NORMAL now
        self._is_doubtful = False  # a sync has failed
        self._changes = 0

    def __enter__(self) -> sqlite3.Connection:
        """Return the connection, once it is its turn. It is to commit without a sync."""
        db = self._db
        if db.in_transaction or db.isolation_level is not None:
            self.settle()
            return db
        if self._defers:
            self._changes = db.total_changes
            if not self._is_deferred:
                db.execute("PRAGMA synchronous = NORMAL")
                self._is_deferred = True
        try:
            fcntl.flock(self._log, _TRY)
        except BlockingIOError:
            self._wait()
        except OSError:
            pass  # closed, perhaps by a task, or a file system without flock
        return db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the turn, and sync what was committed. Raises NotSynced."""
        db = self._db
        if db.in_transaction and error is None:
            return
        try:
            fcntl.flock(self._log, fcntl.LOCK_UN)
        except OSError:
            pass  # as above
        if not self._is_deferred or db.in_transaction:
            return
        has_news = self.syncs_findings or db.total_changes != self._changes
        if isinstance(error, AlreadyEnqueued) or (error is None and has_news):
            self._sync()

    def settle(self) -> None:
        """Let SQLite sync what is committed other than by such blocks.

        Not at the end of each block: setting FULL and NORMAL again costs as much as the INSERT.
        """
        if self._is_deferred and not self._db.in_transaction:
            self._db.execute("PRAGMA synchronous = FULL")
            self._is_deferred = False

    def _wait(self) -> None:
        begun = time.monotonic()
        if begun < self._impatient_until:
            return
        while time.monotonic() < begun + LONGEST_WAIT:
            time.sleep(TRY_EVERY)
            with suppress(OSError):
                return fcntl.flock(self._log, _TRY)
        self._impatient_until = begun + IMPATIENT

    def _sync(self) -> None:
        try:
            self._require_same()
            if self._is_doubtful:
                self._start_over()
            os.fdatasync(self._log)
        except (OSError, sqlite3.Error) as error:
            self._is_doubtful = True
            raise NotSynced(f"disk I/O error: the commit was not synced: {error}") from error

    def _start_over(self) -> None:
        """Begin a new log. Linux may have dropped what it could not write, and a later sync would succeed."""
        is_busy, *_pages = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise OSError(errno.EIO, "the write-ahead log is in use, and cannot be started over")
        self._is_doubtful = False

    def _require_same(self) -> None:
        """Raise OSError unless the descriptor is that of the log that SQLite writes to."""
        if os.lseek(self._log, 0, os.SEEK_CUR) != self._mark:
            raise OSError(errno.EBADF, "another file has the descriptor of the write-ahead log")

    def close(self) -> None:
        """Close its descriptor."""
        with suppress(OSError, AttributeError):  # never opened, or closed, perhaps by a task
            self._require_same()
            os.close(self._log)
            self._log = -1  # another one may get the number

    __del__ = close


def settle_for_django(execute: Callable[..., Any], *arguments: Any) -> Any:
    """Let SQLite sync what Django commits: a wrapper of each of its statements."""
    connection = arguments[-1]["connection"]
    block, is_set_up = connection.snappea_writing, connection.snappea_link is connection.connection
    if is_set_up and isinstance(block, Writes):
        block.settle()
    return execute(*arguments)
