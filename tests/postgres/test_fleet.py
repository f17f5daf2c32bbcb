"""What several Foremen and many callers cost the server, by counts: locks, notifications, transactions."""

import itertools
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from django.db import connections, transaction

from snappea.models import Gate, Task
from snappea.postgres import ringing
from snappea.queue import groups, store
from snappea.queue.clock import now
from snappea.queue.database import connect, raw, transact
from snappea.queue.records import Call
from tests.playground.gated import alone
from tests.playground.tasks import nothing, record
from tests.site import DEADLINE, PostgresSite, wait_until

pytestmark = [pytest.mark.on_postgres, pytest.mark.long]
QUEUES = {"red": 10, "green": 10, "blue": 10}


@pytest.fixture
def listener(site: PostgresSite) -> Iterator["psycopg.Connection[Any]"]:
    """Return a connection that listens, as a Foreman of any version does."""
    with closing(site.server.connect(site.name)) as connection:
        connection.execute("LISTEN snappea")
        yield connection


@pytest.fixture
def statements(site: PostgresSite) -> Iterator[list[str]]:
    """Let the server log what this process runs; the list has it once the test asks."""
    raw(connect()).execute("SET log_statement = 'all'")
    yield []


def logged(site: PostgresSite, *words: str) -> list[str]:
    """Return which of these words the statements of this process begin with, in their order."""
    pid = raw(connect()).execute("SELECT pg_backend_pid()").fetchone()[0]
    text = (site.server.directory / "log").read_text()
    return re.findall(rf"\[{pid}\] LOG:  [^:]+:\s+({'|'.join(words)})\b", text)


def wait_for_ring(listener: "psycopg.Connection[Any]", rows: int) -> None:
    """Wait for a notification that comes when so many rows are there."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        rang = list(listener.notifies(timeout=1, stop_after=1))
        if rang and listener.execute("SELECT count(*) FROM snappea_task").fetchone() == (rows,):
            return
    raise AssertionError("the last call did not ring")


def test_claims_neither_wait_for_each_other_nor_lock_what_they_leave(site: PostgresSite) -> None:
    for queue in QUEUES:
        store.enqueue_many([Call("tests.nothing", "[]", "{}", queue, 0, False)] * 4)
    other = connections["snappea"].copy()
    other.ensure_connection()
    raw(other).execute("SET lock_timeout = 1")
    with closing(other), transact(connect()) as mine, transact(other) as theirs:
        first = store.claim(mine, now(), 5, QUEUES)
        second = store.claim(theirs, now(), 6, QUEUES)
        third = store.claim(mine, now(), 6, QUEUES)
        assert [len(first), len(second), len(third)] == [5, 6, 1]
    assert len({claim.id for claim in first + second + third}) == 12


def test_a_group_is_checked_again_after_a_foreman_has_blocked_its_task(site: PostgresSite) -> None:
    """As when a Foreman stops, or a task of the group is cancelled."""
    alone.delay("second")
    other = connections["snappea"].copy()
    other.ensure_connection()
    with closing(other), ThreadPoolExecutor(1) as threads:
        with transact(other) as theirs:
            groups.hold_gates(theirs)
            (newcomer,) = groups.block_new(theirs)
            raised = threads.submit(recheck, newcomer.lane)
            wait_until(lambda: site.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
        raised.result(DEADLINE)
    assert Task.objects.get().gate == Gate.NEW


def recheck(lane: str | None) -> None:
    """Check a group again, in a thread."""
    with transact(connect()) as db:
        groups.recheck(db, [lane or ""])
    connections.close_all()


def test_a_transaction_of_the_caller_does_not_notify(
    site: PostgresSite, statements: list[str], listener: "psycopg.Connection[Any]"
) -> None:
    with transaction.atomic("snappea"):
        nothing.delay()
    nothing.delay()
    words = logged(site, "BEGIN", "INSERT", "COMMIT", "NOTIFY")
    assert words == ["BEGIN", "INSERT", "COMMIT", "NOTIFY", "INSERT", "NOTIFY"]


def test_many_calls_notify_seldom_but_the_last_one_rings(
    site: PostgresSite, statements: list[str], listener: "psycopg.Connection[Any]"
) -> None:
    began, calls = time.monotonic(), 400
    for _ in range(calls):
        nothing.delay()
    most = ringing.MOST_AT_ONCE + (time.monotonic() - began) / ringing.EVERY + 1
    assert logged(site, "INSERT", "NOTIFY").count("INSERT") == calls
    assert logged(site, "NOTIFY").count("NOTIFY") <= most
    wait_for_ring(listener, calls)


def test_a_process_that_ends_rings_before(site: PostgresSite, listener: "psycopg.Connection[Any]") -> None:
    program = site.program("for _ in range(200): nothing.delay()")
    assert program.wait() == 0, program.output()
    wait_for_ring(listener, 200)


def test_a_child_rings_too(site: PostgresSite, listener: "psycopg.Connection[Any]") -> None:
    """Its parent's thread, which would ring for the last calls, is not there."""
    code = """
import os
for _ in range(100): nothing.delay()
if os.fork(): os.wait()
else:
    for _ in range(100): nothing.delay()
"""
    program = site.program(code)
    assert program.wait() == 0, program.output()
    wait_until(lambda: site.counts() == {"ready": 200})
    wait_for_ring(listener, 200)


def test_of_many_foremen_one_listens(site: PostgresSite) -> None:
    """The others find by polling what it does not take, and listen from then on."""
    site.settings |= {"FOREMAN_TIMEOUT": 4}
    site.sql(f"ALTER DATABASE {site.name} SET log_statement = 'all'")
    log = site.server.directory / "log"
    before = log.stat().st_size

    def count(word: str) -> int:
        return log.read_text()[before:].count(f": {word} snappea")

    foremen = [site.foreman() for _ in range(5)]
    wait_until(lambda: 3 <= count("LISTEN") <= 4)
    numbers = itertools.count()

    def run_one() -> None:
        record.delay(number := next(numbers))
        wait_until(lambda: site.ledger.count("end", number))

    def is_one_left() -> bool:
        run_one()
        return count("LISTEN") - count("UNLISTEN") == 1

    wait_until(is_one_left)
    for foreman in foremen[:-1]:
        foreman.kill()
    run_one()
