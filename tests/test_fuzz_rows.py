"""Rows written by hand: the Foreman continues, and commands and pages show them."""

import itertools
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from django.core.management import call_command
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from snappea.models import Status, Task
from snappea.queue.clock import now
from tests.fuzzing import PLAIN_TEXTS, fuzz
from tests.playground.coroutines import few_at_a_time
from tests.playground.lifecycle import add, two_at_a_time
from tests.playground.tasks import record
from tests.site import Process, Site, wait_until
from tests.web import user

DATES = st.sampled_from(
    [
        *("2026-01-01 00:00:00", "2026-01-01", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"),
        *("2026-13-45 99:99:99", "yesterday", "2026-01-01T00:00:00+00:00", "2026-01-01 00:00:00+14:00"),
        *("", "12:00", "-1", "10000-01-01 00:00:00"),
    ]
)
#: Values that SQLite accepts in any column.
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    PLAIN_TEXTS,
    st.binary(max_size=20),
    st.binary(max_size=5).map(lambda text: ("CAST(? AS TEXT)", text)),  # perhaps invalid UTF-8
    DATES,
    st.sampled_from(
        ["[]", "{}", "null", "[1, 2]", '["x"]', '{"key": 1}', "[NaN]", "1e999", "{", '"x"', "[" * 3000]
    ),
)
COLUMNS = [field.attname for field in Task._meta.concrete_fields if field.attname != "id"]
DATED = [column for column in COLUMNS if column.endswith(("_at", "_after"))]
NAMES = st.sampled_from([record.name, add.name, two_at_a_time.name, few_at_a_time.name])
HOW_MANY = st.dictionaries(st.sampled_from(COLUMNS), VALUES, min_size=1, max_size=4)


class Hand(NamedTuple):
    """A valid row of a task, except for what was written to some of its columns."""

    name: str
    columns: dict[str, Any]

    def write(self, db: sqlite3.Connection) -> int | None:
        """Insert it, and return its id; None if the database refuses it."""
        good = {"task_name": self.name, "args": '["k"]', "enqueued_at": now(), "status": "ready"}
        row = {**good, **self.columns}
        cells = [value if isinstance(value, tuple) else ("?", value) for value in row.values()]
        columns, texts = ", ".join(row), ", ".join(text for text, _value in cells)
        try:
            return db.execute(
                f"INSERT INTO snappea_task ({columns}) VALUES ({texts})", [value for _text, value in cells]
            ).lastrowid
        except sqlite3.IntegrityError:
            return None


HANDS = st.builds(Hand, NAMES, HOW_MANY)
TIMED_HANDS = st.builds(Hand, NAMES, st.dictionaries(st.sampled_from(DATED), DATES | VALUES, min_size=1))
_canaries = itertools.count()


@pytest.fixture
def db(site: Site) -> Iterator[sqlite3.Connection]:
    """Return a connection from outside the queue."""
    connection = sqlite3.connect(site.database, timeout=60, isolation_level=None)
    yield connection
    connection.close()


def assert_it_goes_on(site: Site, foreman: Process) -> None:
    """Check that a valid task runs, and the Foreman lives."""
    key = f"canary-{next(_canaries)}"
    record.delay(key)
    wait_until(
        lambda: site.ledger.count("end", key) or foreman.popen.poll() is not None,
        foreman.output()[-3000:],
        20,
    )
    assert foreman.popen.poll() is None, foreman.output()[-5000:]


@pytest.mark.long
def test_the_foreman_goes_on(site: Site, db: sqlite3.Connection) -> None:
    """Each row that it could claim is gone, or has failed with a reason."""
    foremen = [site.foreman(NUM_WORKERS=2)]

    @fuzz(30)
    @given(hands=st.lists(HANDS | TIMED_HANDS, min_size=1, max_size=8))
    def check(hands: list[Hand]) -> None:
        db.execute("DELETE FROM snappea_task")
        if foremen[-1].popen.poll() is not None:  # the last example has ended it
            foremen.append(site.foreman(NUM_WORKERS=2))
        written = [hand.write(db) for hand in hands]
        assert_it_goes_on(site, foremen[-1])
        wait_until(lambda: not left_over(db), f"{left_over(db)} of {written}", 10)

    check()
    assert foremen[-1].stop() == 0


def left_over(db: sqlite3.Connection) -> list[Any]:
    """Return the rows that should have run, and those that failed without a reason."""
    return db.execute("""
        SELECT id, status, quote(task_name) FROM snappea_task
        WHERE (status = 'ready' AND gate = 0 AND is_async IN (0, 1))
            OR (status = 'running' AND started_at IS NOT NULL AND claims = 1)
            OR (status = 'failed' AND claims = 1 AND error = '')""").fetchall()


@pytest.mark.long
def test_a_foreman_starts_on_what_it_finds(site: Site, db: sqlite3.Connection) -> None:
    """What a Foreman left running, in rows that were changed since."""

    @fuzz(4)
    @given(hands=st.lists(HANDS | TIMED_HANDS, min_size=1, max_size=8))
    def check(hands: list[Hand]) -> None:
        db.execute("DELETE FROM snappea_task")
        for number, hand in enumerate(hands):
            hand._replace(columns={"status": ("ready", "running")[number % 2], **hand.columns}).write(db)
        foreman = site.foreman(NUM_WORKERS=2)
        assert_it_goes_on(site, foreman)
        wait_until(lambda: not left_over(db), f"{left_over(db)}", 10)
        foreman.kill()

    check()


TASKS = "/admin/snappea/task/"
PAGES = [f"{TASKS}?q=state:{status}" for status in Status.values]
PAGES += [TASKS, *(f"/admin/snappea/dashboard/{tab}" for tab in ("", "failures/", "workers/")), "/admin/"]
STATUSES = st.sampled_from(Status.values)


@fuzz(10)
@given(hands=st.lists(st.tuples(HANDS | TIMED_HANDS, STATUSES), min_size=1, max_size=4))
def test_whoever_looks_at_them_sees_them(
    site: Site, db: sqlite3.Connection, boss: Client, hands: list[tuple[Hand, str]]
) -> None:
    db.execute("DELETE FROM snappea_task")
    written = [hand._replace(columns={"status": status, **hand.columns}).write(db) for hand, status in hands]
    for page in PAGES:
        assert boss.get(page).status_code in (200, 503), page
    for number in filter(None, written):
        assert boss.get(f"{TASKS}{number}/change/").status_code in (200, 302)
    for status in Status.values:
        call_command("snappea", "list", status)
        call_command("snappea", "list", status, "--json")
    for number in filter(None, written):
        call_command("snappea", "show", str(number))
        call_command("snappea", "show", str(number), "--json")
    call_command("snappea", "status")
    call_command("snappea", "status", "--json")


@pytest.fixture
def boss(site: Site) -> Client:
    """Return a browser in which a superuser is logged in."""
    browser = Client()
    browser.force_login(user("boss", is_superuser=True))
    return browser
