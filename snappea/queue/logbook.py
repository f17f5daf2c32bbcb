"""The logbook: how far each claim in flight has come, for the recovery after a kill -9.

A claimed task has not yet started. In a small memory-mapped file beside the database, each worker notes which
claim it starts and how it ended; a note takes well under a microsecond. The kernel keeps the pages if the
process is killed, but not if the power fails: the file names its boot, and is ignored after a reboot.

A cell is filled before the claim is committed, and emptied after its outcome is. It contains the moment of
the claim, which tells it from a row with the same id and from another copy of the database. A claim without a
cell may have begun.
"""

import errno
import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, NamedTuple

from .files import QueueFile, open_beside, open_regular
from .records import Claim

_HEADER = struct.Struct("8s 40s Q")  # magic, boot id, number of cells
_MAGIC = b"snappea2"
_CELL = struct.Struct("4q")  # claims, moment, note, task id, written in this order; id 0: a free cell
_WORDS = 4
_NOTE, _ID = 2, 3
_EPOCH = datetime(1970, 1, 1)


class Note(IntEnum):
    """How far a claim has come."""

    CLAIMED = 0
    BEGUN = 1
    SUCCEEDED = 2
    FAILED = 3
    TO_RETRY = 4
    REVOKED = 5


_CLAIMED = int(Note.CLAIMED)  # faster than the enumeration's member


class Entry(NamedTuple):
    """The claim of a cell: a row's `id`, its `claims`, and the moment of the claim in microseconds."""

    id: int
    claims: int
    moment: int

    @classmethod
    def of(cls, task_id: int, claims: int, started_at: object) -> "Entry":
        """Return the entry that belongs to a row."""
        return cls(task_id, claims, _microseconds(started_at))


def _microseconds(moment: Any) -> int:
    """Return a time from the database in microseconds; 0 for an invalid one."""
    try:
        return (datetime.fromisoformat(moment).replace(tzinfo=None) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, TypeError):  # written by hand
        return 0


class Logbook:
    """A fixed number of cells, one for each claim in flight; without a file, in memory only.

    The Foreman enters a claim into a cell; one worker then owns the cell until the outcome is back. An
    existing file is emptied. Raises OSError.
    """

    def __init__(self, file: QueueFile | None, cells: int) -> None:
        size = _HEADER.size + cells * _CELL.size
        self._map = _map(file, size) if file else mmap.mmap(-1, size)
        self._words = memoryview(self._map)[_HEADER.size :].cast("q")
        _HEADER.pack_into(self._map, 0, _MAGIC, _boot_id(), cells)
        self.free = list(range(cells))
        self._started_at: str | None = None
        self._moment = 0

    def enter(self, claim: Claim) -> int:
        """Fill a free cell for a claim that has not begun, and return the cell's number.

        Raises IndexError if no cell is free, TypeError or ValueError for numbers that do not fit.
        """
        started_at, position = claim.started_at, _HEADER.size + self.free[-1] * _CELL.size
        if started_at != self._started_at:  # all claims of a round share it
            self._started_at, self._moment = started_at, _microseconds(started_at)
        try:
            _CELL.pack_into(self._map, position, claim.claims, self._moment, _CLAIMED, claim.id)
        except struct.error as error:
            raise ValueError(f"the id {claim.id!r} or claims {claim.claims!r} is out of range") from error
        return self.free.pop()

    def release(self, cells: Iterable[int]) -> None:
        """Empty cells."""
        words = self._words
        for cell in cells:
            words[cell * _WORDS + _ID] = 0
            self.free.append(cell)

    def note(self, cell: int, note: int) -> None:
        """Note how far the claim in a cell has come."""
        self._words[cell * _WORDS + _NOTE] = note

    def is_begun(self, cell: int) -> bool:
        """Return whether a worker has begun the claim in a cell."""
        return self._words[cell * _WORDS + _NOTE] != _CLAIMED

    def close(self) -> None:
        """Unmap the file; it stays for the next Foreman."""
        self._words.release()
        self._map.close()


def _map(file: QueueFile, size: int) -> mmap.mmap:
    descriptor = open_beside(file, file.logbook)
    try:
        # not sparse: writing to a page that a full disk has no room for kills the process
        if os.write(descriptor, bytes(size)) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.logbook)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def read(file: QueueFile) -> Mapping[Entry, Note] | None:
    """Return the notes of the running Foreman, or the last one; None if unreadable, or of another boot."""
    try:
        with open(open_regular(file.logbook, os.O_RDONLY), "rb") as logbook:
            content = logbook.read()
        magic, boot_id, count = _HEADER.unpack_from(content)
        if len(content) < _HEADER.size + count * _CELL.size:
            return None
        cells = _CELL.iter_unpack(content[_HEADER.size : _HEADER.size + count * _CELL.size])
        notes = {Entry(task_id, *rest): Note(note) for *rest, note, task_id in cells if task_id}
    except (OSError, struct.error, ValueError):
        return None
    is_of_this_boot = boot_id.strip(b"\0") and boot_id == _boot_id().ljust(40, b"\0")
    return notes if magic == _MAGIC and is_of_this_boot else None


def _boot_id() -> bytes:
    """Return the id of this boot; b"" if the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as boot_id:
            return boot_id.read().strip()
    except OSError:
        return b""
