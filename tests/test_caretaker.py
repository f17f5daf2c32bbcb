"""What the Caretaker does about the queue's files."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from snappea import caretaker
from snappea.caretaker import Caretaker
from snappea.database import connect, file_of, raw
from snappea.lock import Lock
from snappea.wakeup import Bell
from tests.playground.tasks import nothing
from tests.site import Site


@pytest.fixture
def keeper(site: Site) -> Iterator[Caretaker]:
    file = file_of(connect())
    assert file
    lock, bell = Lock(file), Bell(file)
    yield Caretaker(connect(), file, lock, bell)
    bell.close()
    lock.close()


def test_all_is_well(keeper: Caretaker) -> None:
    assert keeper.look() == ""


@pytest.mark.parametrize(
    ("suffix", "words"), [("", "was deleted or replaced"), ("-lock", "another Foreman may")]
)
def test_what_cannot_be_mended_is_a_reason_to_stop(
    site: Site, keeper: Caretaker, suffix: str, words: str
) -> None:
    Path(f"{site.database}{suffix}").unlink()
    assert words in keeper.look()


def test_the_wakeup_file_is_put_back(site: Site, keeper: Caretaker) -> None:
    Path(f"{site.database}-wakeup").unlink()
    assert keeper.look() == ""
    assert Path(f"{site.database}-wakeup").exists()


def test_the_log_is_folded_in_at_rest_or_when_it_is_large(
    site: Site, keeper: Caretaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = Path(f"{site.database}-wal")
    nothing.delay()
    keeper.look()
    assert wal.stat().st_size > 0, "no time of rest yet, and not large"
    monkeypatch.setattr(caretaker, "LARGE_WAL", 1)
    keeper.look()
    assert wal.stat().st_size == 0
    nothing.delay()
    monkeypatch.setattr(caretaker, "LARGE_WAL", 10**9)
    monkeypatch.setattr(caretaker, "REST", -1.0)
    keeper.look()
    assert wal.stat().st_size == 0


def test_a_reader_does_not_stop_the_caretaker(
    site: Site, keeper: Caretaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caretaker, "REST", -1.0)
    nothing.delay()
    reader = sqlite3.connect(site.database, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM snappea_task").fetchone()
    nothing.delay()
    assert keeper.look() == ""
    assert Path(f"{site.database}-wal").stat().st_size > 0
    reader.close()
    keeper.look()
    assert Path(f"{site.database}-wal").stat().st_size == 0
    assert raw(connect()).execute("PRAGMA busy_timeout").fetchone() == (caretaker.BUSY_TIMEOUT,)
