"""Durable commits that do not hold SQLite's write lock while they wait for the disk.

With FULL, SQLite syncs the write-ahead log within each commit, so processes wait for the disk one after
another. Here a commit only writes. Its process syncs the log afterwards, before it acknowledges anything, and
the file system lets all processes wait together.
"""

import errno
import os
import sqlite3
from contextlib import suppress
from types import TracebackType

from django.db import OperationalError

from ..errors import AlreadyEnqueued
from .files import QueueFile, open_regular


class NotSynced(OperationalError):
    """A transaction was committed, but the disk refused it: after a power cut it may be gone."""


def durable_writes(db: sqlite3.Connection, file: QueueFile) -> "DurableWrites | None":
    """Return a DurableWrites for a connection with FULL; None if only SQLite can sync."""
    if file.wal is not None and hasattr(os, "fdatasync"):
        with suppress(OSError):
            return DurableWrites(db, file)
    return None


class DurableWrites:
    """Surrounds a transaction, or one statement outside of a transaction, and makes it durable at its end.

    Inside a transaction that is already open, as in `atomic()`, it does nothing: Django commits with FULL.

    No checkpoint can lose a commit that is not yet synced. With NORMAL, too, SQLite syncs the log before it
    copies it into the database, and the database before the log starts over; and it syncs the header of each
    log, with the directory, before the first commit to it.
    """

    #: Whether to sync a transaction that wrote nothing. It may have found what another process has committed,
    #: but not yet synced, such as an identical call.
    syncs_findings = True

    def __init__(self, db: sqlite3.Connection, file: QueueFile) -> None:
        self._db, self._identity = db, file.wal
        # One for each connection, and kept open: Linux reports a failed write once to each open descriptor,
        # and never to one that is opened later. SQLite holds no locks on this file that close() would drop.
        self._log = open_regular(f"{file.path}-wal", os.O_RDONLY)
        self._is_deferred = False  # synchronous is NORMAL now
        self._is_doubtful = False  # a sync has failed
        self._changes = 0
        self._require_same()

    def __enter__(self) -> sqlite3.Connection:
        """Return the connection, which is to commit without a sync."""
        db = self._db
        if not db.in_transaction and db.isolation_level is None:
            self._changes = db.total_changes
            db.execute("PRAGMA synchronous = NORMAL")
            self._is_deferred = True
        return db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sync what was committed. Raises NotSynced."""
        if not self._is_deferred or self._db.in_transaction:
            return
        self._db.execute("PRAGMA synchronous = FULL")
        self._is_deferred = False
        has_news = self.syncs_findings or self._db.total_changes != self._changes
        if isinstance(error, AlreadyEnqueued) or (error is None and has_news):
            self._sync()

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
        found = os.fstat(self._log)
        if (found.st_dev, found.st_ino) != self._identity:
            raise OSError(errno.EBADF, "another file has the descriptor of the write-ahead log")

    def close(self) -> None:
        """Close its descriptor."""
        with suppress(OSError, AttributeError):  # never opened, or closed, perhaps by a task
            self._require_same()
            os.close(self._log)

    __del__ = close
