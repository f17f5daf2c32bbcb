"""A disk that loses its power.

What was synced is there. Of what was written since, any sectors may be, so it is torn and in any order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .trace import Call, Event

#: What a disk writes completely or not at all, in bytes.
SECTOR = 512
#: These files mean nothing after a crash of the machine.
FLEETING = ("-shm", "-lock", "-wakeup")
#: What is left of the shared memory.
GARBAGE = bytes(range(256)) * 128
SYNCS = ("fsync", "fdatasync")


@dataclass(eq=False)
class Change:
    """A write, or the new length of a file."""

    offset: int
    data: bytes | None = None
    is_done: bool = False

    def apply(self, content: bytearray, is_kept: Callable[[], bool]) -> None:
        """Change a file's content, as far as it is kept."""
        if self.data is None:
            if is_kept():
                _resize(content, self.offset)
            return
        end, first = self.offset + len(self.data), self.offset
        while first < end:
            last = min(end, first - first % SECTOR + SECTOR)
            if is_kept():
                _resize(content, max(len(content), last))
                content[first:last] = self.data[first - self.offset : last - self.offset]
            first = last


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


@dataclass(eq=False)
class File:
    """What of a file is on the disk for certain, and what may be."""

    durable: bytearray = field(default_factory=bytearray)
    changes: list[Change] = field(default_factory=list)

    def after(self, is_kept: Callable[[], bool]) -> bytearray:
        """Return the content after a power cut."""
        content = bytearray(self.durable)
        for change in self.changes:
            change.apply(content, is_kept)
        return content


Names = dict[str, File | None]


class Disk:
    """The files of a database. The ledger is elsewhere, and loses nothing.

    A sync of a file makes its name durable as well, as it does on Linux's journaling file systems. The sync
    number `lost` of the file that ends with `suffix` is ignored.
    """

    def __init__(self, database: Path, content: bytes, lost: int = -1, suffix: str = "-wal") -> None:
        self.path, self.directory = str(database), str(database.parent)
        self.ledger: list[bytes] = []
        self.syncs = 0
        self._lost, self._watched = lost, self.path + suffix
        self._names: Names = {self.path: File(bytearray(content))}
        self._durable_names = dict(self._names)
        self._renames: list[Names] = []
        self._begun: dict[Call, Change] = {}
        self._syncing: dict[Call, tuple[File | None, list[Change], list[Names]]] = {}

    def feed(self, event: Event) -> str:
        """Do what a call does. Return what happened: "change", "sync", a word of the ledger, or ""."""
        call, path = event.call, event.call.path
        if "(deleted)" in call.rest:
            return ""
        if call.name in SYNCS:
            return self._sync(call, event.is_end)
        if path == f"{self.directory}/ledger" and call.name == "write" and not event.is_end:
            self.ledger.append(call.strings[1])
            return call.strings[1].split()[1].decode()
        if path.startswith(self.path) and not path.endswith(FLEETING):
            if event.is_end and call in self._begun:
                self._begun.pop(call).is_done = True
            elif not event.is_end:
                return self._change(call)
        return ""

    def _change(self, call: Call) -> str:
        path, file = call.path, self._names.get(call.path)
        match call.name:
            case "openat" if "O_TRUNC" not in call.rest:
                if file or "O_CREAT" not in call.rest:
                    return ""
                self._rename({path: File()})
            case "unlink":
                if not file:
                    return ""
                self._rename({path: None})
            case "rename":
                self._rename({path: None, call.strings[1].decode(): file})
            case "pwrite64" | "write" | "ftruncate" if file:
                offset = 0 if call.name == "write" else call.number  # only the logbook is written without one
                data = None if call.name == "ftruncate" else call.strings[1]
                file.changes.append(change := Change(offset, data))
                self._begun[call] = change
            case _:
                raise NotImplementedError(f"{call.name}({call.rest}) of {path}")
        return "change"

    def _rename(self, names: Names) -> None:
        self._names.update(names)
        self._renames.append(names)

    def _sync(self, call: Call, is_end: bool) -> str:
        """Make durable what was done when the call began, once it returns."""
        path = call.path
        if not is_end:
            file = self._names.get(path)
            changes = [change for change in file.changes if change.is_done] if file else []
            is_all = path == self.directory
            renames = [names for names in self._renames if is_all or (file and names.get(path) is file)]
            self._syncing[call] = file, changes, renames
            return ""
        file, changes, renames = self._syncing.pop(call)
        self.syncs += path == self._watched
        if path == self._watched and self.syncs - 1 == self._lost:
            return ""
        for change in changes:
            if file and change in file.changes:
                change.apply(file.durable, lambda: True)
                file.changes.remove(change)
        for names in renames:
            self._settle(names)
        return "sync"

    def _settle(self, names: Names) -> None:
        """Make names durable. That of a file replaces those that the same path had before."""
        numbers = [number for number, other in enumerate(self._renames) if other is names]
        for number in numbers:  # none, if another sync was faster
            self._durable_names.update(names)
            later = enumerate(self._renames)
            self._renames = [other for n, other in later if n > number or not other.keys() & names.keys()]

    def cut(self, directory: Path, is_kept: Callable[[], bool]) -> None:
        """Write into a directory what is left after a power cut. `is_kept` decides about each sector."""
        names = dict(self._durable_names)
        for renamed in self._renames:
            if is_kept():
                names.update(renamed)
        for path, file in names.items():
            if file:
                (directory / Path(path).name).write_bytes(file.after(is_kept))
        (directory / "ledger").write_bytes(b"".join(self.ledger))
        (directory / f"{Path(self.path).name}-shm").write_bytes(GARBAGE)
