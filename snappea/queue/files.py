"""The queue's files: their paths, how to open them, and which processes lock them."""

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

#: The device and the inode of a file.
Identity: TypeAlias = tuple[int, int]

#: A directory that changed within so many nanoseconds may change again without a new time of change.
SETTLED = 100_000_000
#: The bytes of a database file that SQLite locks to write without WAL.
MAIN_LOCKS = {"1073741824", "1073741825", "1073741826"}
#: WAL mode needs shared memory: it does not work across hosts, virtual machines, or FUSE on an object store.
#: The kernel prefixes the names of FUSE file systems with "fuse.".
NETWORK_FILE_SYSTEMS = {
    kind
    for name in """
        9p afpfs afs beegfs blobfuse blobfuse2 ceph ceph-fuse cephfs cifs coda curlftpfs davfs drvfs
        fakeowner gcsfuse gfs gfs2 glusterfs goofys gpfs grpcfuse juicefs lizardfs lustre mfs moosefs mount-s3
        mountpoint-s3 ncpfs nfs nfs3 nfs4 ocfs2 orangefs osxfs prl_fs pvfs2 rclone s3fs s3ql seaweedfs smb3
        smbfs smbnetfs sshfs vboxsf virtiofs vmhgfs vmhgfs-fuse
    """.split()  # noqa: SIM905  (a list of 60 quoted names is harder to read)
    for kind in (name, f"fuse.{name}")
}
#: Empty after the machine or the container restarts.
FLEETING_FILE_SYSTEMS = {"tmpfs", "ramfs"}
#: Usually a container's own layer.
LAYERED_FILE_SYSTEMS = {"overlay", "overlayfs", "aufs", "fuse.fuse-overlayfs"}
#: Whether a Foreman can run here at all.
IS_UNIX = all(hasattr(os, name) for name in ("fork", "register_at_fork", "geteuid"))
NEEDS_UNIX = (
    "The Foreman needs Unix (fork, file locks), which Windows lacks: run it under WSL, with the project and "
    'its databases in WSL\'s own file system. SNAPPEA = {"TASK_ALWAYS_EAGER": True} needs no Foreman.'
)
#: Never follow a link or wait for a FIFO, where the system has these flags.
_NEVER_WAIT = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC"))


def at_fork(**hooks: Any) -> None:
    """Call os.register_at_fork() where it exists."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


@dataclass
class QueueFile:
    """The database file as a connection opened it, and the paths of Snappea's files beside it."""

    path: str
    device: int
    inode: int
    #: None where the connection is not in WAL mode.
    wal: Identity | None = None
    shm: Identity | None = None
    _seen: tuple[int, int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.directory = os.path.dirname(self.path)
        #: Touched when there may be something to do.
        self.wakeup = f"{self.path}-wakeup"
        #: The Foreman holds an flock on it.
        self.lock = f"{self.path}-lock"
        #: Workers note in it which tasks they start and end.
        self.logbook = f"{self.path}-logbook"

    def is_gone(self) -> bool:
        """Tell whether the database, its `-wal` or its `-shm` was deleted or replaced.

        This is cheap while the directory is unchanged.
        """
        state = self.state()
        if state and state == self._seen:
            return False
        if self.lost():
            return True
        if state and time.time_ns() - state[1] > SETTLED:
            self._seen = state
        return False

    def state(self) -> tuple[int, int] | None:
        """Return what changes if a file in the directory is made, moved or deleted."""
        try:
            found = os.stat(self.directory)
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns

    def lost(self) -> str:
        """Return the path of a file that was deleted or replaced; "" if there is none."""
        if self.is_replaced():
            return self.path
        for suffix, identity in (("-wal", self.wal), ("-shm", self.shm)):
            if identity and is_lost(path := self.path + suffix, identity):
                return path
        return ""

    def is_replaced(self) -> bool:
        """Tell whether the database itself was deleted or replaced."""
        return is_lost(self.path, (self.device, self.inode))

    def wal_size(self) -> int:
        """Return the size of the write-ahead log in bytes."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0


def identity_of(path: str | int) -> Identity | None:
    """Return the device and inode of a path or an open file; None if it does not exist."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_lost(path: str, identity: Identity) -> bool:
    """Tell whether a path does not lead to this file any more. False while the system cannot tell."""
    try:
        found = os.stat(path)
    except OSError as error:  # for a disk that fails, or a directory that is closed to us, nothing is deleted
        return isinstance(error, (FileNotFoundError, NotADirectoryError))
    return (found.st_dev, found.st_ino) != identity


def give_to_owner_of_directory(raw: sqlite3.Connection, path: str) -> None:
    """Give a database that root has just created to the owner of its directory."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not path:
        return
    directory = os.stat(os.path.dirname(path))
    if directory.st_uid == 0 or raw.execute("PRAGMA schema_version").fetchone()[0] > 0:
        return
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(OSError):  # missing, or root may not chown, as in some containers
            found = os.lstat(name)
            if stat.S_ISREG(found.st_mode) and found.st_uid == 0 and found.st_nlink == 1:
                os.chown(name, directory.st_uid, directory.st_gid, follow_symlinks=False)


def file_system(path: str) -> str:
    """Return the type of a path's file system; "" if the system does not tell."""
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
    """Restrict a database that SQLite has just created to its owner, or to the group of a shared directory.

    Leave it alone if it has content, or a mode that is not SQLite's default.
    """
    try:
        found, directory = os.stat(path), os.stat(os.path.dirname(path))
        is_new = not found.st_size and not stat.S_IMODE(found.st_mode) & ~0o644
        if not is_new or not IS_UNIX or found.st_uid != os.geteuid():
            return
        mode = 0o600
        if directory.st_mode & (stat.S_ISGID | stat.S_IWGRP):
            with suppress(OSError):  # not a member of that group
                os.chown(path, -1, directory.st_gid)
                mode = 0o660
        os.chmod(path, mode)
    except OSError:
        pass  # SQLite reports the problem


def open_regular(path: str, flags: int) -> int:
    """Open a regular file, and return its descriptor. Raises OSError, also for a link, FIFO or directory."""
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
    """Open or create one of Snappea's files, with the database's owner, group and mode as far as allowed.

    Returns the descriptor. Raises OSError as open_regular() does.
    """
    database = os.stat(file.path)
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    found = os.fstat(descriptor)
    if found.st_nlink > 1:  # perhaps a system file, which root must not chown
        os.close(descriptor)
        raise FileExistsError(f"{path} is a hard link to another file; move it away")
    if found.st_uid == os.geteuid():
        os.fchmod(descriptor, stat.S_IMODE(database.st_mode) & 0o666)
    owner = database.st_uid if os.geteuid() == 0 else -1  # as SQLite does for -wal and -shm
    if (found.st_uid, found.st_gid) != (database.st_uid, database.st_gid):
        with suppress(OSError):  # not a member of that group, or root may not chown, as in some containers
            os.fchown(descriptor, owner, database.st_gid)
    return descriptor


def locks_on(path: str) -> Iterator[tuple[str, str, int, str]]:
    """Yield kind, mode, pid and first byte of each lock on a file; nothing if the system does not tell."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii") as locks:
            lines = [line.split() for line in locks if "->" not in line]  # those only wait for a lock
    except OSError:
        return
    for _number, kind, _how, mode, pid, place, first, _last in lines:
        if place.endswith(f":{inode}"):
            yield kind, mode, int(pid), first


def lockers(path: str, first_bytes: Collection[str], modes: Collection[str] = ("READ", "WRITE")) -> list[int]:
    """Return the pids of other processes with a lock on a file that starts at one of these bytes."""
    locks = locks_on(path)
    pids = {pid for _kind, mode, pid, first in locks if first in first_bytes and mode in modes}
    return sorted(pids - {0, -1, os.getpid()})


def writers(path: str) -> list[int]:
    """Return the pids of other processes that hold a database's write lock."""
    return lockers(f"{path}-shm", {"120"}, ["WRITE"]) or lockers(path, MAIN_LOCKS, ["WRITE"])
