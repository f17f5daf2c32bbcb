"""Power cuts between system calls: what is then left of the files is what `powerloss/disk.py` says.

With `SNAPPEA_POWER_CUTS=all`, after every call that changes a file or that a promise depends on.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.db import connections

from tests.powerloss import trace
from tests.powerloss.disk import Disk
from tests.powerloss.promises import broken
from tests.site import Site

pytestmark = [pytest.mark.long, pytest.mark.needs("strace")]
#: How many cuts to try, and after how many of them a Foreman runs.
CUTS, RUNS = 150, 3
#: After these, more must hold than before.
PROMISES = ("ack", "start", "kept", "end")
IS_ALL = os.environ.get("SNAPPEA_POWER_CUTS") == "all"


class Recording(NamedTuple):
    """The life of a queue in system calls, and how its database began."""

    database: Path
    content: bytes
    events: list[trace.Event]

    def replay(self, **options: Any) -> Iterator[tuple[Disk, str]]:
        """Yield the disk after each event, and what happened."""
        disk = Disk(self.database, self.content, **options)
        for event in self.events:
            if what := disk.feed(event):
                yield disk, what


def record(directory: Path, migrated: Path, synchronous: str) -> Recording:
    """Let the processes of `life.py` run, and record their system calls."""
    for database in migrated.glob("*.sqlite3"):
        shutil.copy(database, directory)
    site = Site(directory)
    site.settings["SYNCHRONOUS"] = synchronous
    site.variables["SNAPPEA_TEST_APPS"] = "tests.powerloss"
    content = site.database.read_bytes()
    wrapper = trace.strace(directory / "trace")
    process = site.program("from tests.powerloss.life import live\nlive()", wrapper=wrapper)
    assert process.wait() == 0, process.output()
    return Recording(site.database, content, list(trace.read(directory / "trace", directory)))


@pytest.fixture(scope="module")
def full(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(tmp_path_factory.mktemp("full"), migrated, "FULL")


@pytest.fixture
def cut(site: Site, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return what cuts the power of a disk, and returns which promises are broken."""
    monkeypatch.setitem(
        connections["snappea"].settings_dict, "OPTIONS", {"init_command": "PRAGMA synchronous = OFF"}
    )
    chance, numbers = random.Random(22), iter(range(10**9))

    def cut(disk: Disk, keeps: float, runs: bool = False) -> list[str]:
        directory = site.directory / f"cut-{next(numbers)}"
        directory.mkdir()
        disk.cut(directory, lambda: chance.random() < keeps)
        found = broken(directory, runs)
        shutil.rmtree(directory)
        return found

    return cut


def test_a_power_cut_at_any_moment(full: Recording, cut: Callable[..., list[str]]) -> None:
    """With FULL nothing accepted is lost, and nothing that had begun begins again."""
    chance = random.Random(22)
    moments = Counter(what for _disk, what in full.replay())
    share = 1.0 if IS_ALL else CUTS / 3 / (moments.total() + 2 * sum(map(moments.__getitem__, PROMISES)))
    cuts = 0
    for disk, what in full.replay():
        if chance.random() < share * (3 if what in PROMISES else 1):
            for keeps in (1.0, 0.0, chance.random()):
                cuts += 1
                assert not cut(disk, keeps, chance.random() < RUNS / CUTS), f"after {what}, kept: {keeps}"
    print(f"{cuts} power cuts in {moments}")


@pytest.mark.parametrize(
    ("suffix", "faults"), [("-wal", {"is lost", "will run again"}), ("", {"is corrupt"})]
)
def test_a_lost_sync_is_noticed(
    full: Recording, cut: Callable[..., list[str]], suffix: str, faults: set[str]
) -> None:
    """The simulation finds planted faults: a sync of the log, or of the database, that does nothing."""
    noticed, tried = Counter[str](), 0
    after = {disk.syncs - 1 for disk, what in full.replay(suffix=suffix) if what in PROMISES}
    lost = sorted(after - {-1})
    random.Random(22).shuffle(lost)
    while lost and (IS_ALL or not faults <= noticed.keys()):
        found = next(filter(None, _cuts_after(full, lost.pop(), suffix, cut)), ["nothing: "])
        noticed.update({text.partition(":")[0] for text in found})
        tried += 1
    print(f"{tried} lost syncs of the database{suffix}: {noticed}")
    assert faults <= noticed.keys()


def _cuts_after(
    full: Recording, lost: int, suffix: str, cut: Callable[..., list[str]]
) -> Iterator[list[str]]:
    """Yield what is broken if the power is cut between a lost sync and the next one."""
    for disk, what in full.replay(lost=lost, suffix=suffix):
        if disk.syncs > lost + 1:
            return
        if disk.syncs == lost + 1 and what in PROMISES:
            yield cut(disk, 0.0)


def test_normal_loses_the_last_moments_but_no_more(
    migrated: Path, tmp_path: Path, cut: Callable[..., list[str]]
) -> None:
    """The database is intact, and what is lost was accepted since the last sync."""
    (directory := tmp_path / "normal").mkdir()
    normal, found = record(directory, migrated, "NORMAL"), Counter[str]()
    promises = [number for number, (_disk, what) in enumerate(normal.replay()) if what in PROMISES]
    chosen = promises if IS_ALL else random.Random(22).sample(promises, CUTS // 3)
    for number, (disk, _what) in enumerate(normal.replay()):
        if number in chosen:
            found.update(text.partition(":")[0] for text in cut(disk, 0.0))
    print(f"{len(chosen)} power cuts: {found}")
    assert found.keys() == {"is lost", "will run again"}
