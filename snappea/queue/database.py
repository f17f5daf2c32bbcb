"""The connections to the queue's database: what is set on them, and the file that each has open.

The project sets ENGINE and NAME. What it sets in OPTIONS takes precedence.
"""

import logging
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol
from weakref import WeakSet

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_started
from django.db import DEFAULT_DB_ALIAS, Error, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.dispatch import receiver
from django.utils.connection import ConnectionDoesNotExist

from ..conf import alias, current, tests_run
from .dialects import statement
from .files import IS_UNIX, QueueFile, at_fork, close_to_others, give_to_owner_of_directory, identity_of

#: What a database may raise.
FAULTS = (sqlite3.Error, Error)
#: What is raised where the queue cannot be used, also by wrong settings.
UNUSABLE = (*FAULTS, ConnectionDoesNotExist, ImproperlyConfigured)


class Rows(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""

    @property
    def lastrowid(self) -> Any:
        """The id of the row that was inserted."""

    def fetchone(self) -> Any:
        """Return the next row; None if there is none."""

    def fetchall(self) -> list[Any]:
        """Return all rows."""


class RawConnection(Protocol):
    """Runs statements as they are written in `statements.py`. Each is a transaction if none is open."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ..., /) -> Rows:
        """Run a statement. Raises one of FAULTS."""

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Rows:
        """Run a statement for each of many parameters. Raises one of FAULTS."""


MEGABYTE = 1024 * 1024
#: Of a new database, in bytes: rows are short, and each commit writes whole pages.
PAGE_SIZE = 1024
PRAGMAS = {
    "page_size": PAGE_SIZE,
    "journal_mode": "WAL",
    "journal_size_limit": 4 * MEGABYTE,
}
#: The size of the write-ahead log at which a process that enqueues checkpoints it, in bytes, by `synchronous`
#: (a Foreman does so earlier). With FULL the file must not grow: to extend it costs a commit twice as much as
#: to overwrite it.
FOLD_FROM = {"FULL": 4 * MEGABYTE, "NORMAL": 64 * MEGABYTE}
#: How many connections of a process stay open between requests, if NUM_WORKERS is not more.
RESTING = 16

BEGIN = statement("{begin}")
logger = logging.getLogger("snappea.database")


class FilesLost(OperationalError):
    """The files that this process has open were deleted or replaced, and it could not open the new ones."""


class _Thread(threading.local):
    connection: BaseDatabaseWrapper | None = None  # asking Django for it costs a tenth of an enqueue


_thread = _Thread()
_live: WeakSet[BaseDatabaseWrapper] = WeakSet()
_kept_across_fork: list[object] = []


#: The package for a database that is not SQLite, by its vendor. It is imported when first used.
ADAPTERS = {"postgresql": "snappea.postgres"}


def adapter(connection: BaseDatabaseWrapper, module: str) -> ModuleType:
    """Import a module of the package for a database that is not SQLite. Raises KeyError for other vendors."""
    return import_module(f"{ADAPTERS[connection.vendor]}.{module}")


@receiver(connection_created)
def prepare(*, connection: Any, **kwargs: Any) -> None:
    """Set what the queue needs on a new connection to its database."""
    if connection.alias != alias():
        return
    connection.snappea_file = None
    if connection.vendor == "sqlite":
        try:
            _prepare_sqlite(connection)
        except BaseException:
            connection.close()  # or it would be used as it is the next time
            raise
    elif connection.vendor in ADAPTERS:
        connection.snappea_link = adapter(connection, "connection").PostgresConnection(connection)
    _live.add(connection)


def _prepare_sqlite(connection: Any) -> None:
    is_own = connection.alias != DEFAULT_DB_ALIAS
    path = _path(connection.connection)
    if is_own and path:
        close_to_others(path)
    give_to_owner_of_directory(connection.connection, path)
    if connection.transaction_mode is None and is_own:
        # a deferred transaction that turns into a writer fails at once with BUSY_SNAPSHOT
        connection.transaction_mode = "IMMEDIATE"
    chosen = connection.settings_dict["OPTIONS"].get("init_command", "")
    theirs = {name.lower() for name in re.findall(r"pragma\s+(\w+)", chosen, re.IGNORECASE)}
    synchronous = current().SYNCHRONOUS
    by_setting = {"wal_autocheckpoint": FOLD_FROM[synchronous] // PAGE_SIZE, "synchronous": synchronous}
    for pragma, value in (PRAGMAS | by_setting).items():
        if pragma not in theirs:
            connection.connection.execute(f"PRAGMA {pragma} = {value}")
    if is_own and sum(other.connection is not None for other in list(_live)) < _most_resting():
        connection.close_at = None  # opening costs more than an enqueue; it holds no lock while it rests
    connection.snappea_file = _identify(connection.connection)
    connection.snappea_link = connection.connection


def _most_resting() -> int:
    """Return how many connections stay open between requests. Others close, as Django's do: greenlets, and
    threads of ASGI servers, end with their request and would leave theirs open.
    """
    return max(RESTING, current().NUM_WORKERS)


@receiver(post_migrate)
def checkpoint_after_migrate(*, using: str, **kwargs: Any) -> None:
    """Write the tables into the file itself: Django copies that alone for tests that run in parallel."""
    connection: Any = connections[using]
    if using == alias() and connection.vendor == "sqlite" and not connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _path(raw: sqlite3.Connection) -> str:
    path: str = raw.execute("PRAGMA database_list").fetchone()[2]
    return path


def _identify(raw: sqlite3.Connection) -> QueueFile | None:
    path = _path(raw)
    if not path:
        return None  # in memory: there is no Foreman to wake
    raw.execute("PRAGMA schema_version").fetchone()  # opens -wal and -shm
    found = os.stat(path)
    return QueueFile(path, found.st_dev, found.st_ino, identity_of(f"{path}-wal"), identity_of(f"{path}-shm"))


def connect() -> BaseDatabaseWrapper:
    """Return Django's connection to the queue's database, open on the current file. Raises as Django does."""
    connection = _thread.connection
    if connection is None or connection.alias != current().DATABASE:
        connection = _thread.connection = connections[current().DATABASE]
        if connection.connection is not None and not hasattr(connection, "snappea_link"):
            prepare(connection=connection)  # the queue's database was changed after it was opened
    if connection.connection is not None and not connection.in_atomic_block:
        file = file_of(connection)
        if file is not None and file.is_gone():
            _leave(connection, file)  # no Foreman would run what is written there
    if connection.connection is None:
        connection.ensure_connection()
    elif "django.test.utils" in sys.modules and tests_run():
        connection.cursor().close()  # raises in a test that may not use this database
    return connection


@receiver(request_started)
def leave_lost_files(**kwargs: Any) -> None:
    """Reconnect this thread if its files were deleted or replaced: also one that only reads."""
    if is_left_behind():
        connect()


def is_left_behind(error: BaseException | None = None) -> bool:
    """Tell whether this thread's connection has files open that were deleted or replaced.

    False inside atomic(), and if that was the `error`, when connect() has tried already.
    """
    connection = _thread.connection
    if connection is None or connection.connection is None or connection.in_atomic_block:
        return False
    file = file_of(connection)
    return file is not None and not isinstance(error, FilesLost) and file.is_gone()


def _leave(connection: BaseDatabaseWrapper, file: QueueFile) -> None:
    """Close a connection whose files were deleted or replaced, after a rescue of what only it can read.

    A Foreman makes the rescue, within a second. Raises FilesLost if it does not.
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
    if any(_has_open(other, file) for other in list(_live)):
        raise FilesLost(
            f"{path} was deleted or replaced, and another thread of this process still has the old one open. "
            "If this goes on, restart the process"
        )


def _has_open(other: BaseDatabaseWrapper, file: QueueFile) -> bool:
    """Tell whether a connection uses a deleted -shm, which all connections of a process share."""
    if other.connection is None or file.is_replaced() or file.shm == identity_of(f"{file.path}-shm"):
        return False
    theirs = file_of(other)
    return theirs is not None and (theirs.inode, theirs.shm) == (file.inode, file.shm)


def forget(connection: BaseDatabaseWrapper) -> None:
    """Make connect() ask Django for the connection of this thread again."""
    if _thread.connection is connection:
        _thread.connection = None


def file_of(connection: BaseDatabaseWrapper) -> QueueFile | None:
    """Return the file behind a connection to the queue's database; None if it is in memory."""
    file: QueueFile | None = getattr(connection, "snappea_file", None)
    return file


def raw(connection: BaseDatabaseWrapper) -> RawConnection:
    """Return the connection beneath Django's: on SQLite the sqlite3 connection itself."""
    link: RawConnection = connection.snappea_link  # type: ignore[attr-defined]  # prepare() put it there
    return link


def data_version(connection: BaseDatabaseWrapper) -> int | None:
    """Return a number that changes when another connection commits; None on other databases than SQLite."""
    if connection.vendor != "sqlite":
        return None
    version: int = raw(connection).execute("PRAGMA data_version").fetchone()[0]
    return version


@contextmanager
def transact(connection: BaseDatabaseWrapper) -> Iterator[RawConnection]:
    """Run a block in one write transaction, or as part of the `atomic()` that is open.

    Yields the connection beneath Django's. Raises FAULTS after a rollback; also if the commit would go to a
    file that no other process reads.
    """
    below = raw(connection)
    if connection.in_atomic_block:
        yield below
        return
    below.execute(BEGIN)
    file = file_of(connection)
    try:
        yield below
        if file is not None and file.is_gone():
            raise sqlite3.OperationalError(f"{file.lost()} was deleted or replaced")
        below.execute("COMMIT")
    except BaseException:
        if below.in_transaction:
            below.execute("ROLLBACK")
        raise


def _hold_connections() -> None:
    # a child does not inherit SQLite's locks, and the index is shared memory: it must neither use nor close a
    # connection of its parent, not even by losing the last reference to it
    _kept_across_fork.extend(wrapper.connection for wrapper in list(_live))


def _abandon_connections() -> None:
    for wrapper in list(_live):
        wrapper.connection = None


at_fork(
    before=_hold_connections,
    after_in_parent=_kept_across_fork.clear,
    after_in_child=_abandon_connections,
)


# wakeups


def ring(file: QueueFile | None) -> None:
    """Wake the Foreman of a queue, if there is one. Never raises."""
    if file is None or not IS_UNIX:
        return  # there cannot be a Foreman
    try:
        os.utime(file.wakeup, follow_symlinks=False)
    except FileNotFoundError:
        pass  # no Foreman yet, or it is just creating the file, and looks at the table then
    except OSError as error:
        _warn_once("Cannot touch %s (%s); the Foreman looks once a second anyway.", file.wakeup, error)


def ring_on_commit(connection: BaseDatabaseWrapper) -> None:
    """Ring once what was written by this connection is committed."""
    file = file_of(connection)
    if file is None and connection.vendor == "postgresql":
        _notify(connection)
    elif connection.in_atomic_block:
        transaction.on_commit(lambda: ring(file), using=connection.alias)
    else:
        ring(file)


def _notify(connection: BaseDatabaseWrapper) -> None:
    """Make the server ring: now, or when the open transaction commits.

    Not within the INSERT: transactions that notify commit one after the other, and each waits for the disk.
    """
    try:
        raw(connection).execute("NOTIFY snappea")
    except FAULTS as error:
        if connection.in_atomic_block:
            raise
        _warn_once("Cannot notify (%s); the Foremen look every few seconds anyway.", error)


def _warn_once(message: str, *args: object) -> None:
    from ..log import say_once  # not needed where a process only enqueues

    say_once(logging.WARNING, message, *args, logger=logging.getLogger("snappea.wakeup"))
