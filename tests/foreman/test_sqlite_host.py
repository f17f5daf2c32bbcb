"""How the Foreman maintains the queue's files."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from snappea.conf import current
from snappea.foreman import sqlite_host
from snappea.foreman.sqlite_host import SqliteHost
from snappea.queue.database import connect, raw
from tests.playground.tasks import nothing
from tests.site import Site

#: When the last round was.
WORKED_AT = time.monotonic()


@pytest.fixture
def keeper(site: Site) -> Iterator[SqliteHost]:
    raw(connect()).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    host = SqliteHost(connect(), current(), None)
    host.enter()
    host.equip()
    yield host
    host.bell.close()
    host.lock.close()


def test_all_is_well(keeper: SqliteHost) -> None:
    assert keeper.look(WORKED_AT) == ""


@pytest.mark.parametrize(
    ("suffix", "words"), [("", "was deleted or replaced"), ("-lock", "another Foreman may")]
)
def test_what_cannot_be_mended_is_a_reason_to_stop(
    site: Site, keeper: SqliteHost, suffix: str, words: str
) -> None:
    Path(f"{site.database}{suffix}").unlink()
    assert words in keeper.look(WORKED_AT)


def test_the_wakeup_file_is_put_back(site: Site, keeper: SqliteHost) -> None:
    Path(f"{site.database}-wakeup").unlink()
    assert keeper.look(WORKED_AT) == ""
    assert Path(f"{site.database}-wakeup").exists()


def in_database(site: Site) -> int:
    """Count the tasks in the database file itself, without the write-ahead log."""
    with closing(sqlite3.connect(f"file:{site.database}?immutable=1", uri=True)) as db:
        count: int = db.execute("SELECT count(*) FROM snappea_task").fetchone()[0]
        return count


def test_the_log_is_checkpointed_at_rest(
    site: Site, keeper: SqliteHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing.delay()
    keeper.look(time.monotonic())
    assert in_database(site) == 0, "no time of rest yet"
    monkeypatch.setattr(sqlite_host, "REST", -1.0)
    keeper.look(WORKED_AT)
    assert in_database(site) == 1
    assert Path(f"{site.database}-wal").stat().st_size > 0, "commits overwrite it, which is cheaper"
    nothing.delay()
    keeper.look(WORKED_AT)
    assert in_database(site) == 1, "once is enough"
    keeper.look(WORKED_AT + 0.001)
    assert in_database(site) == 2


def test_a_large_log_is_checkpointed_and_cut_off(
    site: Site, keeper: SqliteHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_host, "LARGE_WAL", 1)
    nothing.delay()
    keeper.look(WORKED_AT)
    assert in_database(site) == 1
    assert Path(f"{site.database}-wal").stat().st_size == 0


def test_a_reader_does_not_stop_maintenance(
    site: Site, keeper: SqliteHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_host, "REST", -1.0)
    with closing(sqlite3.connect(site.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM snappea_task").fetchone()
        nothing.delay()
        assert keeper.look(WORKED_AT) == ""
        assert in_database(site) == 0
    keeper.look(WORKED_AT)
    assert in_database(site) == 1
    assert raw(connect()).execute("PRAGMA busy_timeout").fetchone() == (sqlite_host.BUSY_TIMEOUT,)
