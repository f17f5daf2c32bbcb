"""Dead rows: claims pass them by, one Foreman vacuums, and its log names what keeps it from removing them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from snappea.postgres import foremen, front
from snappea.postgres.connection import DIALECT
from snappea.postgres.front import Front
from snappea.postgres.vacuum import DEAD_ROWS, Vacuum
from snappea.queue import operations, store
from snappea.queue import statements as sql
from snappea.queue.clock import now
from snappea.queue.database import connect, raw, transact
from snappea.queue.records import Claim, Outcome
from tests.site import PostgresSite, wait_until

pytestmark = [pytest.mark.on_postgres, pytest.mark.long]


@pytest.fixture
def other(site: PostgresSite) -> Iterator["psycopg.Connection[Any]"]:
    """A connection of another program. The server itself does not vacuum the table."""
    site.sql("ALTER TABLE snappea_task SET (autovacuum_enabled = false)")
    with site.server.connect(site.name) as connection:
        connection.execute("SET application_name = 'report'")
        yield connection


def leave_dead_rows(site: PostgresSite) -> None:
    """Make so many dead rows that a vacuum pays, and wait until the server has counted them."""
    rows = f"SELECT 'some.task', now() FROM generate_series(1, {DEAD_ROWS})"
    site.sql(f"INSERT INTO snappea_task (task_name, enqueued_at) {rows}")
    site.sql("DELETE FROM snappea_task")
    wait_until(lambda: counts(site)[1] >= DEAD_ROWS)


def counts(site: PostgresSite) -> tuple[int, int]:
    """Return how many times the table was vacuumed, and its number of dead rows."""
    known = "SELECT vacuum_count, n_dead_tup FROM pg_stat_user_tables WHERE relname = 'snappea_task'"
    [found] = site.sql(known)
    return found[0], found[1]


def test_a_foreman_removes_dead_rows(site: PostgresSite, other: Any) -> None:
    site.foreman(FOREMAN_TIMEOUT=4)
    leave_dead_rows(site)
    wait_until(lambda: counts(site) == (1, 0))


def test_of_two_foremen_one_vacuums(site: PostgresSite, other: Any, caplog: Any) -> None:
    other.execute("SELECT pg_advisory_lock(1936613744, 3)")  # as the one that vacuums
    leave_dead_rows(site)
    vacuum = Vacuum(connect())
    vacuum.look(raw(connect()))
    vacuum._thread.join()
    assert counts(site)[0] == 0
    other.execute("SELECT pg_advisory_unlock_all()")
    vacuum._next_look = 0.0
    vacuum.look(raw(connect()))
    vacuum._thread.join()
    assert not caplog.records
    wait_until(lambda: counts(site) == (1, 0))


def test_the_log_names_an_old_transaction(site: PostgresSite, other: Any) -> None:
    with other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM snappea_pause")
        leave_dead_rows(site)
        foreman = site.foreman(FOREMAN_TIMEOUT=4)
        foreman.wait_for_output(
            rf"WARNING snappea_task has {DEAD_ROWS} dead rows, .*: pid {other.info.backend_pid} "
            r"\(report\), open for \d+ s\. End that"
        )
    assert counts(site)[0] == 1


def test_the_log_says_that_it_is_over(site: PostgresSite, other: Any, caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("snappea.postgres.vacuum.TRY_AGAIN", 0.0)
    caplog.set_level("INFO", "snappea")
    vacuum = Vacuum(connect())
    other.execute("BEGIN")
    other.execute("SELECT pg_current_xact_id()")
    leave_dead_rows(site)
    for said in (r"snappea_task has \d+ dead rows.*\(report\)", "VACUUM could remove dead rows again"):
        vacuum.look(raw(connect()))
        vacuum._thread.join()
        assert re.search(said, caplog.records[-1].getMessage())
        other.execute("ROLLBACK")
    assert len(caplog.records) == 2


# claims

DEFAULT = {"default": 1000}


def insert(site: PostgresSite, number: int, priority: int = 0) -> None:
    """Add ready tasks."""
    rows = f"SELECT 'some.task', now(), {priority} FROM generate_series(1, {number})"
    site.sql(f"INSERT INTO snappea_task (task_name, enqueued_at, priority) {rows}")


def claim(line: Front, limit: int) -> list[Claim]:
    """Claim tasks as a Foreman."""
    with transact(connect()) as db:
        return line.claim(db, now(), limit, DEFAULT)


def pages_read(statement: str, *parameters: object) -> int:
    """Run a statement, undo what it did, and return how many pages it has read."""
    db = raw(connect())
    db.execute("BEGIN")
    text = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {DIALECT.text_of(statement)}"
    found = db.execute(text, parameters).fetchone()[0]
    db.execute("ROLLBACK")
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("is_held", [False, True])
def test_a_claim_reads_no_more_pages_after_many_tasks(
    site: PostgresSite, other: Any, is_held: bool, monkeypatch: Any
) -> None:
    """No more if a transaction is open that may still read their rows."""
    monkeypatch.setattr("snappea.postgres.front.KNOWN_FOR", 0.0)
    if is_held:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM snappea_pause")
    db, line = raw(connect()), Front()
    foremen.use_indexes(db)
    foremen.be_known(db, 1)
    insert(site, 8000)
    site.sql("ANALYZE snappea_task")

    def pages() -> list[int]:
        key = line._line
        assert line._known
        place = *key, line._known[0], *key, *line._known, key[1]
        return [pages_read(sql.PEEK), pages_read(front._CLAIM_FROM, now(), *place, 10)]

    claims = claim(line, 100) + claim(line, 100)
    before = pages()
    for _ in range(60):
        store.settle(db, now(), [Outcome(one, 0.0) for one in claims])
        claims = claim(line, 100)
    assert pages() <= [number + 30 for number in before]


@pytest.fixture
def line(site: PostgresSite, monkeypatch: Any) -> Front:
    """A front that is known, behind 150 running tasks and before 50 that are ready."""
    insert(site, 200)
    line = Front()
    claim(line, 100)
    monkeypatch.setattr("snappea.postgres.front.KNOWN_FOR", 3600.0)
    line._until = 0.0
    claim(line, 50)
    assert line._known
    return line


def test_an_urgent_task_comes_first(site: PostgresSite, line: Front) -> None:
    insert(site, 1, priority=5)
    insert(site, 1, priority=-5)
    assert [one.order for one in claim(line, 3)] == [-5, 0, 0]
    assert [one.order for one in claim(line, 100)] == [0] * 48 + [5]


def test_a_task_before_the_front_waits_for_a_moment(site: PostgresSite, line: Front) -> None:
    site.sql("UPDATE snappea_task SET status = 'ready' WHERE id = (SELECT min(id) FROM snappea_task)")
    assert claim(line, 1)[0].id == 151
    line._until = 0.0
    assert claim(line, 1)[0].id == 1


def test_a_free_worker_does_not_wait_for_that(site: PostgresSite, line: Front) -> None:
    site.sql("UPDATE snappea_task SET status = 'ready' WHERE id = (SELECT min(id) FROM snappea_task)")
    assert len(claim(line, 51)) == 51


def test_nothing_is_claimed_from_a_paused_queue(site: PostgresSite, line: Front) -> None:
    operations.pause("default")
    assert claim(line, 100) == []
