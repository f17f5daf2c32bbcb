"""The rescue, after the `-wal` or `-shm` file of the queue's database was deleted or replaced while open.

A process keeps the deleted files open, and commits to files that no other process reads. `rescue()` copies
everything committed to a new database file. Every process then sees that the database was replaced, as after
a restored backup.
"""

import os
import sqlite3
import time
from contextlib import suppress
from typing import Any

from .files import QueueFile, identity_of, locks_on, open_beside

#: How often a rescue starts over because another process has committed.
TRIES = 10
#: How often, in seconds, and how many times a process checks whether the Foreman has made a rescue.
LEAVE_EVERY = 0.05
LEAVE_TRIES = 100
#: The first byte that SQLite locks in a database file that it has open in WAL mode.
_SHARED_LOCK = "1073741826"
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_WAL_HEADER = 32
#: A process that waits to write to the old files must fail, not succeed.
_CLOSE_OLD = "ALTER TABLE snappea_task RENAME TO snappea_task_of_deleted_files"


def rescue_without_foreman(connection: sqlite3.Connection, file: QueueFile) -> None:
    """Make a rescue, or wait until the Foreman has made one. Raises OSError or sqlite3.Error."""
    import fcntl  # exists on Unix only

    descriptor = open_beside(file, file.lock)
    try:
        for _ in range(LEAVE_TRIES):
            if file.is_replaced():
                return  # by the Foreman
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                rescue(connection, file)
                return
            time.sleep(LEAVE_EVERY)
        raise TimeoutError("the Foreman, which should do it, does not answer")
    finally:
        os.close(descriptor)


def rescue(connection: sqlite3.Connection, file: QueueFile) -> bool:
    """Replace the database with a copy of what a connection to deleted files can still read.

    Only for the holder of the Foreman's lock. What other processes commit to the old files before the move is
    in the copy; a later commit fails. Returns False, with nothing changed, if newer content may exist. Raises
    OSError or sqlite3.Error.
    """
    if not _is_newest(file):
        return False
    copy = f"{file.path}-rescue"
    for _ in range(TRIES):
        version = _version(connection)
        _copy(connection, copy)
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) == version:
            break
        connection.execute("ROLLBACK")  # another process has committed to the old files
    else:
        return False
    try:
        _put_in_place(copy, file)
        connection.execute(_CLOSE_OLD)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return True


def _version(connection: sqlite3.Connection) -> Any:
    return connection.execute("PRAGMA data_version").fetchone()[0]


def _copy(connection: sqlite3.Connection, path: str) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    target = sqlite3.connect(path)
    try:
        connection.backup(target)
    finally:
        target.close()


def _put_in_place(copy: str, file: QueueFile) -> None:
    was = os.stat(file.path)
    with suppress(PermissionError):
        os.chown(copy, was.st_uid, was.st_gid)
    os.chmod(copy, was.st_mode & 0o7777)
    for suffix in ("-wal", "-shm"):  # those of the old file
        with suppress(FileNotFoundError):
            os.unlink(file.path + suffix)
    os.replace(copy, file.path)
    directory = os.open(file.directory, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _is_newest(file: QueueFile) -> bool:
    """Tell whether no process can have committed to newer files than this one has open.

    If code in this process opened and closed the database file, SQLite's lock is lost. Then the last other
    process to close the database deletes `-wal` and `-shm`, and the next one creates new ones.
    """
    if file.is_replaced():
        return False
    ours = ("POSIX", os.getpid(), _SHARED_LOCK)
    if all((kind, pid, first) != ours for kind, _mode, pid, first in locks_on(file.path)):
        return False
    return identity_of(f"{file.path}-shm") in (None, file.shm) and not _has_newer_log(file)


def _has_newer_log(file: QueueFile) -> bool:
    """Tell whether `-wal` is now a log that SQLite began after the one that is open here."""
    if identity_of(path := f"{file.path}-wal") == file.wal:
        return False
    opened = (f"/proc/self/fd/{descriptor}" for descriptor in os.listdir("/proc/self/fd"))
    ours = next((name for name in opened if identity_of(name) == file.wal), "")
    header = _header(path)
    return header[:4] in _WAL_MAGIC and header != _header(ours)


def _header(path: str) -> bytes:
    try:
        with open(path, "rb") as log:  # safe: SQLite holds no locks on it that close() would drop
            return log.read(_WAL_HEADER)
    except OSError:
        return b""
