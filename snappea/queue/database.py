"""Connections to the queue's database: their settings, their files, transactions and wakeups.

The project sets ENGINE and NAME. Its own OPTIONS take precedence over what is set here.
"""

import logging
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol
from weakref import ref

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished, request_started
from django.db import DEFAULT_DB_ALIAS, Error, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.dispatch import receiver
from django.utils.connection import ConnectionDoesNotExist

from ..conf import alias, current, tests_run
from .dialects import statement
from .durable import NotSynced, Writes, settle_for_django, writes
from .files import IS_UNIX, QueueFile, at_fork, close_to_others, give_to_owner_of_directory, identity_of

#: How many old rows are deleted at once.
MOST_OLD = 1000
#: Errors of a database.
FAULTS = (sqlite3.Error, Error)
#: Errors that mean that the queue cannot be used, including those of wrong settings.
UNUSABLE = (*FAULTS, ConnectionDoesNotExist, ImproperlyConfigured)


class _Rows(Protocol):
    @property
    def rowcount(self) -> int: ...
    @property
    def lastrowid(self) -> Any: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class RawConnection(Protocol):
    """Runs the statements of `statements.py`. Without an open transaction, each is one of its own."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ..., /) -> _Rows:
        """Run a statement. Raises one of FAULTS."""

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> _Rows:
        """Run a statement for each row of parameters. Raises one of FAULTS."""


MEGABYTE = 1024 * 1024
#: In bytes. Rows are short, and each commit writes whole pages.
PAGE_SIZE = 1024
PRAGMAS = {"page_size": PAGE_SIZE, "journal_mode": "WAL", "journal_size_limit": 4 * MEGABYTE}
#: The size at which an enqueuing process checkpoints the write-ahead log, in bytes, by `synchronous`. The
#: Foreman does it earlier. With FULL the file must not grow: extending it makes a commit twice as slow.
CHECKPOINT_AT = {"FULL": 4 * MEGABYTE, "NORMAL": 64 * MEGABYTE}
#: How many connections of a process stay open between requests, or NUM_WORKERS if that is more. The others
#: close as Django's do: a greenlet or a thread of an ASGI server would leave its connection open forever.
RESTING = 16
#: The package for each database other than SQLite, imported on first use.
ADAPTERS = {"postgresql": "snappea.postgres"}

BEGIN = statement("{begin}")
logger = logging.getLogger("snappea.database")


class FilesLost(OperationalError):
    """The database's files were deleted or replaced, and this process could not open the new ones."""


class _Thread(threading.local):
    connection: BaseDatabaseWrapper | None = None  # asking Django for it costs a tenth of an enqueue
    closer: object = None


class _Closer:
    """Closes a connection when the thread or greenlet that opened it has ended: no request's end may do so.

    Django's object is part of cycles, so it stays open until Python collects garbage.
    """

    def __init__(self, *opened: Any) -> None:
        self._opened, self._pid = opened, os.getpid()

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        if getpid() == self._pid:  # not in a child, where the threads of its parent end
            for opened in self._opened:
                opened.close()


_thread = _Thread()
_live: set[ref[BaseDatabaseWrapper]] = set()  # not a WeakSet, which threads cannot change while one iterates
_kept_across_fork: list[object] = []


def _wrappers() -> list[BaseDatabaseWrapper]:
    """Return Django's connections to the queue's database that still exist."""
    return [wrapper for found in list(_live) if (wrapper := found()) is not None]


def adapter(connection: BaseDatabaseWrapper, module: str) -> ModuleType:
    """Import a module of the package for a database other than SQLite. Raises KeyError if there is none."""
    return import_module(f"{ADAPTERS[connection.vendor]}.{module}")


@receiver(connection_created)
def prepare(*, connection: Any, **kwargs: Any) -> None:
    """Set up a new connection if it leads to the queue's database."""
    if connection.alias != alias():
        return
    connection.snappea_file = None
    if connection.vendor == "sqlite":
        try:
            _prepare_sqlite(connection)
        except BaseException:
            connection.close()  # otherwise the next query would use it half prepared
            raise
    elif connection.vendor in ADAPTERS:
        link = connection.snappea_link = adapter(connection, "connection").PostgresConnection(connection)
        connection.snappea_writing = nullcontext(link)
    _live.add(ref(connection, _live.discard))


def _prepare_sqlite(connection: Any) -> None:
    is_own = connection.alias != DEFAULT_DB_ALIAS
    path: str = connection.connection.execute("PRAGMA database_list").fetchone()[2]
    if is_own and path:
        close_to_others(path)
    give_to_owner_of_directory(connection.connection, path)
    if connection.transaction_mode is None and is_own:
        # a deferred transaction that becomes a writer fails at once with BUSY_SNAPSHOT
        connection.transaction_mode = "IMMEDIATE"
    chosen = connection.settings_dict["OPTIONS"].get("init_command", "")
    theirs = {name.lower() for name in re.findall(r"pragma\s+(\w+)", chosen, re.IGNORECASE)}
    synchronous = current().SYNCHRONOUS
    by_setting = {"wal_autocheckpoint": CHECKPOINT_AT[synchronous] // PAGE_SIZE, "synchronous": synchronous}
    for pragma, value in (PRAGMAS | by_setting).items():
        if pragma not in theirs:
            connection.connection.execute(f"PRAGMA {pragma} = {value}")
    resting = sum(other.connection is not None for other in _wrappers())
    if is_own and resting < max(RESTING, current().NUM_WORKERS):
        connection.close_at = None  # opening costs more than an enqueue; it holds no lock while it rests
    connection.snappea_file = _identify(connection.connection, path) if path else None  # none in memory
    link = connection.snappea_link = connection.connection
    connection.snappea_writing = nullcontext(link)
    if is_own and path:
        defers = synchronous == "FULL" and "synchronous" not in theirs
        block = writes(link, connection.snappea_file, defers)
        connection.snappea_writing = block or nullcontext(link)
        _thread.closer = _Closer(link, *filter(None, [block]))
        if settle_for_django not in connection.execute_wrappers:
            connection.execute_wrappers.append(settle_for_django)


@receiver(post_migrate)
def checkpoint_after_migrate(*, using: str, **kwargs: Any) -> None:
    """Write the tables into the main file, which is all that Django copies for parallel tests."""
    connection: Any = connections[using]
    if using == alias() and connection.vendor == "sqlite" and not connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _identify(raw: sqlite3.Connection, path: str) -> QueueFile:
    raw.execute("PRAGMA schema_version").fetchone()  # opens -wal and -shm
    try:
        found = os.stat(path)
    except OSError as error:
        raise sqlite3.OperationalError(f"unable to open database file: {error}") from error
    return QueueFile(path, found.st_dev, found.st_ino, identity_of(f"{path}-wal"), identity_of(f"{path}-shm"))


def connect() -> BaseDatabaseWrapper:
    """Return Django's connection to the queue's database, open on the current file. Raises UNUSABLE."""
    connection = _thread.connection
    if connection is None or connection.alias != current().DATABASE:
        connection = _thread.connection = connections[current().DATABASE]
        if connection.connection is not None and not hasattr(connection, "snappea_link"):
            prepare(connection=connection)  # the queue's database was changed after it was opened
    if connection.connection is not None and not connection.in_atomic_block:
        file = file_of(connection)
        if file is not None and file.is_gone():
            _leave(connection, file)  # no Foreman reads the old file
    if connection.connection is None:
        connection.ensure_connection()
    elif "django.test.utils" in sys.modules and tests_run():
        connection.cursor().close()  # raises in a test that may not use this database
    return connection


@receiver(request_started)
def leave_lost_files(**kwargs: Any) -> None:
    """Reconnect this thread if its files were deleted or replaced, even if it only reads."""
    if is_left_behind():
        connect()


@receiver(request_finished)
def close_with_connection(**kwargs: Any) -> None:
    """Close our descriptor of a connection that Django has just closed: its greenlet may stay for long."""
    if _thread.connection is not None and _thread.connection.connection is None:
        _thread.closer = None


def is_left_behind(error: BaseException | None = None) -> bool:
    """Tell whether this thread's connection has deleted or replaced files open, and may reconnect.

    False inside atomic(), after FilesLost, when connect() has already tried, and after NotSynced: what was
    written may be there.
    """
    connection = _thread.connection
    if connection is None or connection.connection is None or connection.in_atomic_block:
        return False
    file = file_of(connection)
    return file is not None and not isinstance(error, (FilesLost, NotSynced)) and file.is_gone()


def _leave(connection: BaseDatabaseWrapper, file: QueueFile) -> None:
    """Close a connection to deleted or replaced files, after a rescue of what only it can read.

    A running Foreman makes the rescue within seconds. Raises FilesLost if it does not.
    """
    path = file.lost()
    logger.warning("%s was deleted or replaced while this process had it open.", path)
    if path != file.path and connection.alias != DEFAULT_DB_ALIAS and IS_UNIX:
        try:
            from .rescue import rescue_without_foreman  # rarely needed

            rescue_without_foreman(connection.connection, file)
        except (OSError, sqlite3.Error) as error:
            raise FilesLost(f"{path} was deleted or replaced, and cannot be made again: {error}") from error
    connection.close()
    if any(_has_open(other, file) for other in _wrappers()):
        raise FilesLost(
            f"{path} was deleted or replaced, and another thread of this process still has the old one open. "
            "If this goes on, restart the process"
        )


def _has_open(other: BaseDatabaseWrapper, file: QueueFile) -> bool:
    """Tell whether a connection uses a deleted -shm, which a process's connections share."""
    if other.connection is None or file.is_replaced() or file.shm == identity_of(f"{file.path}-shm"):
        return False
    theirs = file_of(other)
    return theirs is not None and (theirs.inode, theirs.shm) == (file.inode, file.shm)


def forget(connection: BaseDatabaseWrapper) -> None:
    """Make connect() ask Django for this thread's connection again."""
    if _thread.connection is connection:
        _thread.connection = None


def file_of(connection: BaseDatabaseWrapper) -> QueueFile | None:
    """Return the file behind a connection to the queue's database; None if it is in memory."""
    file: QueueFile | None = getattr(connection, "snappea_file", None)
    return file


def raw(connection: BaseDatabaseWrapper) -> RawConnection:
    """Return the connection beneath Django's, to read; on SQLite, the sqlite3 connection."""
    link: RawConnection = connection.snappea_link  # type: ignore[attr-defined]  # prepare() put it there
    return link


def writing(connection: BaseDatabaseWrapper) -> AbstractContextManager[RawConnection]:
    """Return a block for one statement that writes, in turn; durable at its end if no transaction is open.

    Yields the raw connection. Raises one of FAULTS.
    """
    block: AbstractContextManager[RawConnection] = connection.snappea_writing  # type: ignore[attr-defined]
    return block


def data_version(connection: BaseDatabaseWrapper) -> int | None:
    """Return a number that changes when another connection commits; None if it is not SQLite."""
    if connection.vendor != "sqlite":
        return None
    version: int = raw(connection).execute("PRAGMA data_version").fetchone()[0]
    return version


@contextmanager
def transact(connection: BaseDatabaseWrapper) -> Iterator[RawConnection]:
    """Run a block in one write transaction, or in the `atomic()` that is open. Yields the raw connection.

    Rolls back and raises one of FAULTS if the commit fails, or would go to a deleted or replaced file. Raises
    NotSynced if it may be lost in a power cut.
    """
    file = file_of(connection)
    with writing(connection) as below:
        if connection.in_atomic_block:
            yield below
            return
        below.execute(BEGIN)
        try:
            yield below
            if file is not None and file.is_gone():
                raise sqlite3.OperationalError(f"{file.lost()} was deleted or replaced")
            below.execute("COMMIT")
        except BaseException:
            if below.in_transaction:
                below.execute("ROLLBACK")
            raise


def delete_old(db: RawConnection, look: str, delete: str, before: str) -> bool:
    """Delete up to MOST_OLD old rows if `look` finds one, and return whether there may be more.

    `look` takes the time. `delete` takes it and the number of rows.
    """
    if not db.execute(look, (before,)).fetchone():
        return False
    return db.execute(delete, (before, MOST_OLD)).rowcount >= MOST_OLD


def _hold_connections() -> None:
    # A child does not inherit SQLite's locks, and the index is shared memory: it must neither use nor close a
    # connection of its parent, not even by garbage collection.
    _kept_across_fork.extend(wrapper.connection for wrapper in _wrappers())


def _abandon_connections() -> None:
    for wrapper in _wrappers():
        wrapper.connection = None
        if isinstance(block := writing(wrapper), Writes):
            block.close()  # its turn ends with the parent, not with its last child


at_fork(
    before=_hold_connections, after_in_parent=_kept_across_fork.clear, after_in_child=_abandon_connections
)


# wakeups


def ring(file: QueueFile | None) -> None:
    """Wake the Foreman of a queue, if there is one. Never raises."""
    if file is None or not IS_UNIX:
        return  # no Foreman can run here
    try:
        os.utime(file.wakeup, follow_symlinks=False)
    except FileNotFoundError:
        pass  # no Foreman yet, or one that is creating the file and reads the table afterwards
    except OSError as error:
        _warn_once("Cannot touch %s (%s); the Foreman still checks every two seconds.", file.wakeup, error)


def ring_on_commit(connection: BaseDatabaseWrapper) -> None:
    """Ring now, or when the open transaction commits."""
    file: Any = file_of(connection)
    wake: Callable[[Any], None] = ring
    if file is None and connection.vendor in ADAPTERS:
        wake, file = adapter(connection, "ringing").ring, connection
    if connection.in_atomic_block:
        transaction.on_commit(lambda: wake(file), using=connection.alias)
    else:
        wake(file)


def _warn_once(message: str, *args: object) -> None:
    from ..log import say_once  # not needed where a process only enqueues

    say_once(logging.WARNING, message, *args, logger=logging.getLogger("snappea.wakeup"))
