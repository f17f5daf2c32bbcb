"""What a turn of the Foreman's loop does when it stops and when something fails."""

import dataclasses
import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from snappea import task
from snappea.conf import current
from snappea.foreman.admission import Admission
from snappea.foreman.in_flight import InFlight
from snappea.foreman.loop import STUCK, Foreman
from snappea.foreman.restart import Restart
from snappea.foreman.round import Planner
from snappea.foreman.shutdown import Shutdown
from snappea.foreman.statistics import Stats
from snappea.models import Pause
from snappea.queue import store
from snappea.queue.database import connect, file_of, raw
from snappea.queue.logbook import Logbook, Note
from snappea.queue.records import Claim
from snappea.tasks.function import registry
from snappea.workers import threads
from snappea.workers.threads import WorkerPool
from tests.site import Site, wait_until


class Parts:
    """A planner with what it needs, and a pool with one worker that never gets a thread."""

    def __init__(self) -> None:
        file = file_of(connect())
        assert file
        settings = dataclasses.replace(current(), NUM_WORKERS=1)
        self.in_flight = InFlight()
        self.in_flight.logbook = Logbook(file, 100)
        self.restart = Restart(settings, self.in_flight)
        self.shutdown = Shutdown(settings, self.in_flight, self.restart, drains=False)
        self.stats = Stats(60)
        self.planner = Planner(
            settings, 10, self.in_flight, Admission(), self.stats, self.restart, self.shutdown
        )
        self.pool = self.planner.pool = WorkerPool(1, self.in_flight.logbook, lambda: None)
        self.pool._slots.acquire()

    def hand_over(self, count: int) -> None:
        self.in_flight.open([Claim(0, number, 1, "tests.any", "[]", "{}") for number in range(count)])
        self.pool.hand_over(self.in_flight.take_entered())


@pytest.fixture
def parts(site: Site) -> Parts:
    return Parts()


def test_what_has_not_begun_is_given_back_in_the_turn_that_decides_to_stop(parts: Parts) -> None:
    parts.hand_over(3)
    parts.planner.plan(rang=False)
    assert len(parts.pool.backlog) == 3
    parts.shutdown.signals = 1
    turn = parts.planner.plan(rang=False)
    assert turn.has_work and not parts.pool.backlog and len(parts.in_flight.unbegun) == 3


def test_a_signal_while_a_restart_waits_claims_nothing(parts: Parts) -> None:
    parts.hand_over(1)
    parts.restart.request("the code changed")
    assert not parts.planner.plan(rang=False).has_room and parts.shutdown.is_to_restart
    parts.shutdown.signals = 1
    turn = parts.planner.plan(rang=True)
    assert not turn.has_room and parts.shutdown.stop_by is not None and not parts.shutdown.is_to_restart


def test_a_pause_waits_for_a_task_that_a_worker_has_just_taken(parts: Parts) -> None:
    Pause.objects.create(queue="default", since="2026-01-01T00:00Z")
    parts.hand_over(2)
    cell, _claim = parts.pool.backlog.popleft()  # as a worker does, before it notes that it begins
    admission, db = Admission(), raw(connect())
    admission.heed_pauses(db, parts.pool, parts.in_flight)
    assert not parts.pool.backlog and store.unconfirmed_pauses(db)
    parts.in_flight.logbook.note(cell, Note.BEGUN)
    admission.heed_pauses(db, parts.pool, parts.in_flight)
    assert not store.unconfirmed_pauses(db)


def test_a_minute_of_statistics_that_is_over_is_work_by_itself(parts: Parts) -> None:
    parts.planner.may_have_more = False
    assert not parts.planner.plan(rang=False).has_work
    parts.stats.backlog = 0
    assert parts.planner.plan(rang=False).has_work


@pytest.fixture
def foreman(site: Site) -> Foreman:
    foreman = Foreman(NUM_WORKERS=2, MAX_STUCK_WORKERS=0)
    foreman._open()
    return foreman


@contextmanager
def without_tables(foreman: Foreman) -> Iterator[None]:
    """Remove the tasks' table, as a migration might."""
    with closing(sqlite3.connect(foreman.host.name, isolation_level=None)) as other:
        other.execute("ALTER TABLE snappea_task RENAME TO elsewhere")
        try:
            yield
        finally:
            other.execute("ALTER TABLE elsewhere RENAME TO snappea_task")


@contextmanager
def full_disk() -> Iterator[None]:
    """Make all writes to files fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def running(foreman: Foreman, function: Callable[[], None], soft_time_limit: float) -> Iterator[None]:
    """Enqueue a task, and turn the loop until it runs."""
    name = f"tests.{function.__name__}"
    task(name=name, soft_time_limit=soft_time_limit)(function).delay()
    try:
        wait_until(lambda: turn(foreman, rang=True) and foreman.in_flight.claims)
        yield
    finally:
        del registry[name]


def turn(foreman: Foreman, rang: bool = False) -> bool:
    foreman._planner.look_at = foreman._planner._peeked_at = 0.0
    foreman._turn(rang)
    return True


def test_too_many_stuck_workers_stop_it_even_if_that_cannot_be_told(
    foreman: Foreman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "STUCK_AFTER", 0.05)
    may_end = threading.Event()

    def endless() -> None:
        may_end.wait(60)  # outside Python, where no exception arrives

    with running(foreman, endless, soft_time_limit=0.05):
        try:
            time.sleep(0.2)
            foreman.pool.enforce_limits()
            time.sleep(0.1)
            with full_disk():
                foreman._turn(rang=False)
            assert foreman._failures == 1, "the disk was full"
            assert foreman.shutdown.stop_by is not None and foreman.shutdown.exit_code == STUCK
        finally:
            may_end.set()


def test_a_turn_that_fails_forgets_no_news(foreman: Foreman) -> None:
    foreman._turn(rang=True)
    assert not foreman._planner.may_have_more
    with without_tables(foreman):
        turn(foreman)
        assert foreman._failures == 1 and foreman._planner.may_have_more


def test_time_limits_hold_while_the_database_cannot_be_used(foreman: Foreman) -> None:
    ended = threading.Event()

    def endless() -> None:
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.set()

    with running(foreman, endless, soft_time_limit=0.3), without_tables(foreman):
        wait_until(lambda: turn(foreman) and ended.is_set())
        assert foreman._failures


def test_outdated_unique_rows_are_looked_for_once_a_minute(foreman: Foreman) -> None:
    asked: list[str] = []
    below = raw(foreman.connection)
    assert isinstance(below, sqlite3.Connection)
    below.set_trace_callback(asked.append)

    def look(times: int) -> int:
        asked.clear()
        for _ in range(times):
            foreman.host.next_look = foreman._planner.look_at = 0.0
            foreman._turn(rang=False)
        return sum("snappea_uniqueuntil" in statement for statement in asked)

    assert look(3) == 1 and look(3) == 0
    foreman._forget_at = 0.0  # a minute later
    assert look(3) == 1
