"""The points of a life, each with its fault: FULL/foreman/kill/17 or NORMAL/enqueuer/pwrite64=EIO/3."""

import errno
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

TARGETS = ("foreman", "enqueuer")
#: What changes a file, or makes a change durable.
CHANGES = (
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "unlink",
    "utimensat",
    "fallocate",
)
_DISK, _FULL, _AGAIN, _REFUSED, _NO_MORE = "EIO", "ENOSPC", "EINTR", "EACCES", "EMFILE"
#: Which errors a call may return.
ERRORS = {
    "openat": (_DISK, _FULL, _NO_MORE, _AGAIN, _REFUSED),
    "read": (_DISK, _AGAIN),
    "pread64": (_DISK, _AGAIN),
    "write": (_DISK, _FULL, _AGAIN),
    "pwrite64": (_DISK, _FULL, _AGAIN),
    "fsync": (_DISK, _FULL),
    "fdatasync": (_DISK, _FULL, _AGAIN),
    "ftruncate": (_DISK, _AGAIN, _REFUSED),
    "fallocate": (_DISK, _FULL),
    "mmap": (_REFUSED, "ENOMEM"),
    "flock": (_AGAIN, "ENOLCK"),
    "fstat": (_DISK,),
    "newfstatat": (_DISK, _REFUSED),
    "fchmod": (_DISK, _REFUSED),
    "utimensat": (_DISK, _REFUSED),
    "rename": (_DISK, _FULL, _REFUSED),
    "unlink": (_DISK, _REFUSED),
    "inotify_init1": (_NO_MORE,),
    "inotify_add_watch": (_FULL, _REFUSED),
    "poll": (_AGAIN,),
    "socketpair": (_NO_MORE,),
    "clone": ("EAGAIN",),
    "clone3": ("EAGAIN",),
}


class Point(NamedTuple):
    """At which call or line of the target, in their order, what happens.

    `what`: "kill" at any call of CHANGES; "line" for a kill before a line of code; or a call and its error.
    """

    synchronous: str
    target: str
    what: str
    at: int

    def __str__(self) -> str:
        return "/".join(map(str, self))

    @classmethod
    def of(cls, text: str) -> "Point":
        """Return the point that str() wrote. Raises ValueError."""
        synchronous, target, what, at = text.split("/")
        return cls(synchronous, target, what, int(at))

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that count."""
        return {"kill": CHANGES, "line": (), "any": tuple(ERRORS)}.get(
            self.what, (self.what.partition("=")[0],)
        )

    @property
    def error(self) -> int:
        """The number of the error; 0 for a kill."""
        return getattr(errno, self.what.partition("=")[2], 0)


def of_kills(synchronous: str, target: str, calls: Counter[str]) -> Iterator[Point]:
    """Yield a kill for each call that changes something."""
    count = sum(calls[name] for name in CHANGES)
    yield from (Point(synchronous, target, "kill", at) for at in range(1, count + 1))


def of_lines(synchronous: str, lines: int) -> Iterator[Point]:
    """Yield a kill for each line around the logbook."""
    yield from (Point(synchronous, "foreman", "line", at) for at in range(1, lines + 1))


def of_errors(synchronous: str, target: str, calls: Counter[str]) -> Iterator[Point]:
    """Yield each error of each call."""
    for name, errors in ERRORS.items():
        for at in range(1, calls[name] + 1):
            yield from (Point(synchronous, target, f"{name}={error}", at) for error in errors)
