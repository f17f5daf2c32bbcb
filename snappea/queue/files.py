"""The queue's SQLite files, and what to do if one is deleted or replaced while it is open.

A process keeps the files that it has open. If the path of `-wal` or `-shm` leads elsewhere, what the process
commits goes to a file that no other process reads. `rescue()` then moves all that was committed to a new
database file, and every process notices that its own was replaced, as if a backup had been put in its place.
"""

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

#: The device and the inode of a file.
Identity: TypeAlias = tuple[int, int]

#: A directory that was changed less than so many seconds ago may change again without a new time of change.
SETTLED = 0.1
#: How often a rescue starts over because another process commits meanwhile.
TRIES = 10
#: The first byte of the database file that SQLite locks as long as it has it open in WAL mode.
_SHARED_LOCK = "1073741826"
#: The bytes of a database file that SQLite locks to write it, other than in WAL mode.
MAIN_LOCKS = {"1073741824", "1073741825", "1073741826"}
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_WAL_HEADER = 32
#: A process that waits to write into the old files must fail, not succeed.
_CLOSE_OLD = "ALTER TABLE snappea_task RENAME TO snappea_task_of_deleted_files"


#: Across hosts, virtual machines and FUSE in front of an object store WAL does not work: its index is shared
#: memory. Some of these are FUSE's, and are told by that in front of the name.
NETWORK_FILE_SYSTEMS = {
    kind
    for name in """
        9p afpfs afs beegfs blobfuse blobfuse2 ceph ceph-fuse cephfs cifs coda curlftpfs davfs drvfs
        fakeowner gcsfuse gfs gfs2 glusterfs goofys gpfs grpcfuse juicefs lizardfs lustre mfs moosefs mount-s3
        mountpoint-s3 ncpfs nfs nfs3 nfs4 ocfs2 orangefs osxfs prl_fs pvfs2 rclone s3fs s3ql seaweedfs smb3
        smbfs smbnetfs sshfs vboxsf virtiofs vmhgfs vmhgfs-fuse
    """.split()  # noqa: SIM905
    for kind in (name, f"fuse.{name}")
}
#: What lies here is gone when the machine, or the container, is started again.
FLEETING_FILE_SYSTEMS = {"tmpfs", "ramfs"}
#: A container's own, as a rule.
LAYERED_FILE_SYSTEMS = {"overlay", "overlayfs", "aufs", "fuse.fuse-overlayfs"}


#: Whether a Foreman can work here at all.
IS_UNIX = all(hasattr(os, name) for name in ("fork", "register_at_fork", "geteuid"))
NEEDS_UNIX = (
    "The Foreman needs Unix (fork, file locks), which Windows lacks: run it under WSL, with the project and "
    'its databases in WSL\'s own file system. SNAPPEA = {"TASK_ALWAYS_EAGER": True} needs no Foreman.'
)


#: Flags to open a file without following a link or waiting for a FIFO, where there are such.
_NEVER_WAIT = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC"))


def at_fork(**hooks: Any) -> None:
    """Do as os.register_at_fork() where processes can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


@dataclass
class QueueFile:
    """The database file as it was when a connection opened it; our other files lie beside it."""

    path: str
    device: int
    inode: int
    #: None where the connection has none: it is not in WAL mode.
    wal: Identity | None = None
    shm: Identity | None = None
    _seen: tuple[int, int] | None = field(default=None, repr=False)

    @cached_property
    def directory(self) -> str:
        """The directory of all these files."""
        return os.path.dirname(self.path)

    @cached_property
    def wakeup(self) -> str:
        """The file that is touched when there may be something to do."""
        return f"{self.path}-wakeup"

    @cached_property
    def lock(self) -> str:
        """The file whose flock the Foreman holds."""
        return f"{self.path}-lock"

    @cached_property
    def logbook(self) -> str:
        """The file in which the workers note what they begin and end."""
        return f"{self.path}-logbook"

    def is_gone(self) -> bool:
        """Tell whether the path of the database, of `-wal` or of `-shm` now leads to nothing, or elsewhere.

        Usually one look at the directory tells that nothing was changed in it.
        """
        try:
            found = os.stat(self.directory)
        except OSError:
            return True
        state = found.st_ino, found.st_ctime_ns
        if state == self._seen:
            return False
        if self.lost():
            return True
        if time.time() - found.st_ctime > SETTLED:
            self._seen = state
        return False

    def lost(self) -> str:
        """Return the path that now leads to nothing, or to another file; "" if there is none."""
        if self.is_replaced():
            return self.path
        for suffix, identity in (("-wal", self.wal), ("-shm", self.shm)):
            if identity and identity_of(path := self.path + suffix) != identity:
                return path
        return ""

    def is_replaced(self) -> bool:
        """Tell whether the path of the database itself now leads to nothing, or to another file."""
        return identity_of(self.path) != (self.device, self.inode)

    def wal_size(self) -> int:
        """Return the size of the write-ahead log in bytes."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0


def identity_of(path: str) -> Identity | None:
    """Return what tells a file from all others; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def give_to_owner_of_directory(raw: sqlite3.Connection, path: str) -> None:
    """Give a database that root has just created to the user that its directory belongs to."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not path:
        return
    directory = os.stat(os.path.dirname(path))
    if directory.st_uid == 0 or raw.execute("PRAGMA schema_version").fetchone()[0] > 0:
        return
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(OSError):  # not there; or root without that right, as in a container
            found = os.lstat(name)
            if stat.S_ISREG(found.st_mode) and found.st_uid == 0 and found.st_nlink == 1:
                os.chown(name, directory.st_uid, directory.st_gid, follow_symlinks=False)


def file_system(path: str) -> str:
    """Return the type of the file system that a path lies on, or "" where that is not told."""
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                _device, point, this_kind = line.split(" ")[:3]
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, this_kind
    except OSError:
        return ""
    return kind


def close_to_others(path: str) -> None:
    """Let only the owner use a database that SQLite has just created, or its group if the directory is that.

    Does nothing to one that has content, or a mode that SQLite does not give.
    """
    try:
        found, directory = os.stat(path), os.stat(os.path.dirname(path))
        if (
            found.st_size
            or stat.S_IMODE(found.st_mode) & ~0o644
            or not IS_UNIX
            or found.st_uid != os.geteuid()
        ):
            return
        mode = 0o600
        if directory.st_mode & (stat.S_ISGID | stat.S_IWGRP):
            with suppress(OSError):  # not a member of that group
                os.chown(path, -1, directory.st_gid)
                mode = 0o660
        os.chmod(path, mode)
    except OSError:
        pass  # not there, or not ours to change: SQLite says what is wrong


def rescue(connection: sqlite3.Connection, file: QueueFile) -> bool:
    """Move what a connection to deleted files can still read to a new file in the database's place.

    For the holder of the Foreman's lock. Nothing committed is lost, and nothing is there twice: whoever
    commits to the old files before the move is in the copy, and whoever tries to after it fails. Returns
    False, and does nothing, if the path leads to newer content. Raises OSError or sqlite3.Error.
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
        connection.execute("ROLLBACK")  # another process has committed to the old files meanwhile
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
    """Replace the database by a copy of it, with the same owner and mode."""
    was = os.stat(file.path)
    with suppress(PermissionError):
        os.chown(copy, was.st_uid, was.st_gid)
    os.chmod(copy, was.st_mode & 0o7777)
    for suffix in ("-wal", "-shm"):  # they belong to the old file
        with suppress(FileNotFoundError):
            os.unlink(file.path + suffix)
    os.replace(copy, file.path)
    directory = os.open(file.directory, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _is_newest(file: QueueFile) -> bool:
    """Tell whether no process can have committed to newer files than a connection has open.

    Without its lock, SQLite deletes `-wal` and `-shm` when the last other process closes the database, and
    whoever comes after that makes new ones.
    """
    if file.is_replaced() or not holds_lock(file):
        return False
    shm = identity_of(f"{file.path}-shm")
    return shm in (None, file.shm) and not _has_newer_log(file)


def _has_newer_log(file: QueueFile) -> bool:
    """Tell whether the path of `-wal` leads to a log that SQLite began after ours."""
    if identity_of(path := f"{file.path}-wal") == file.wal:
        return False
    header = _header(path)
    return header[:4] in _WAL_MAGIC and header != _header(_open_log(file))


def _header(path: str) -> bytes:
    try:
        with open(path, "rb") as log:  # SQLite has no locks on it that this could drop
            return log.read(_WAL_HEADER)
    except OSError:
        return b""


def _open_log(file: QueueFile) -> str:
    """Return a path to the log that this process has open, even if it was deleted."""
    for descriptor in os.listdir("/proc/self/fd"):
        if identity_of(path := f"/proc/self/fd/{descriptor}") == file.wal:
            return path
    return ""


def holds_lock(file: QueueFile) -> bool:
    """Tell whether this process holds SQLite's lock on the database file.

    It loses it when any code in it opens the file and closes it again. False where the system does not tell.
    """
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            lines = [line.split() for line in locks]
    except OSError:
        return False
    me = str(os.getpid())
    return any(
        line[1] == "POSIX"
        and line[4] == me
        and line[5].endswith(f":{file.inode}")
        and line[6] == _SHARED_LOCK
        for line in lines
        if len(line) == 8
    )


def open_regular(path: str, flags: int) -> int:
    """Open a file, and return its descriptor. Never follows a symbolic link, and never waits for a FIFO.

    Raises OSError, also if it is not a regular file.
    """
    try:
        descriptor = os.open(path, flags | _NEVER_WAIT, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # a link, a directory, a socket
            raise FileExistsError(f"{path} is not a regular file; move it away") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileExistsError(f"{path} is not a regular file; move it away")
    return descriptor


def open_beside(file: QueueFile, path: str) -> int:
    """Open one of our own files, with the owner, group and mode of the database as far as we may set them.

    Returns a file descriptor. Never follows a symbolic link. Raises OSError.
    """
    database = os.stat(file.path)
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    found = os.fstat(descriptor)
    if found.st_nlink > 1:  # it may be a file of the system, which root must not give away
        os.close(descriptor)
        raise FileExistsError(f"{path} is a hard link to another file; move it away")
    if found.st_uid == os.geteuid():
        os.fchmod(descriptor, stat.S_IMODE(database.st_mode) & 0o666)
    owner = database.st_uid if os.geteuid() == 0 else -1  # as SQLite does for -wal and -shm
    if (found.st_uid, found.st_gid) != (database.st_uid, database.st_gid):
        with suppress(OSError):  # of another group, or root without that right: as in a container
            os.fchown(descriptor, owner, database.st_gid)
    return descriptor


def lockers(path: str, first_bytes: Collection[str], mode: str = "") -> list[int]:
    """Return the pids of the other processes that lock a file from one of these bytes on.

    `mode`: only locks of this kind, "READ" or "WRITE". None where the system does not tell.
    """
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii") as locks:
            lines = [line.replace("->", "").split() for line in locks]
    except OSError:
        return []
    return sorted(
        {
            int(pid)
            for _number, _kind, _how, this_mode, pid, place, first, _last in lines
            if place.endswith(f":{inode}") and first in first_bytes and this_mode.startswith(mode)
            if int(pid) not in (0, -1, os.getpid())
        }
    )


def writers(path: str) -> list[int]:
    """Return the pids of the other processes that keep everyone else from writing a database."""
    return lockers(f"{path}-shm", {"120"}, "WRITE") or lockers(path, MAIN_LOCKS, "WRITE")
