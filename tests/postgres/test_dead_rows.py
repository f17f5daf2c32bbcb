"""Dead rows: one Foreman vacuums, and its log names what keeps the server from removing them."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from snappea.postgres.vacuum import DEAD_ROWS, Vacuum
from snappea.queue.database import connect, raw
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
