"""The worker threads: which ones run, park and are woken."""

import threading
from collections.abc import Iterator

import pytest

from snappea import task
from snappea.queue.database import connect, file_of
from snappea.queue.logbook import Logbook
from snappea.queue.records import Claim
from snappea.tasks.function import registry
from snappea.workers.threads import WorkerPool, drain
from tests.site import Site, wait_until


class Gate:
    """A task that waits, and what it has done."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.running = self.peak = 0
        self.order: list[int] = []
        self._lock = threading.Lock()

    def pass_through(self, number: int) -> None:
        with self._lock:
            self.running += 1
            self.peak = max(self.peak, self.running)
            self.order.append(number)
        assert self.open.wait(60)
        with self._lock:
            self.running -= 1


@pytest.fixture
def gate(site: Site) -> Iterator[Gate]:
    gate = Gate()

    @task(name="tests.gate")
    def pass_through(number: int) -> None:
        gate.pass_through(number)

    yield gate
    gate.open.set()
    del registry["tests.gate"]


@pytest.fixture
def logbook(site: Site) -> Logbook:
    file = file_of(connect())
    assert file
    return Logbook(file, 1000)


def claims(logbook: Logbook, numbers: range) -> list[tuple[int, Claim]]:
    made = [Claim(0, number, 1, "tests.gate", f"[{number}]", "{}") for number in numbers]
    return [(logbook.enter(claim), claim) for claim in made]


def test_no_more_at_once_than_its_size(gate: Gate, logbook: Logbook) -> None:
    pool = WorkerPool(3, logbook, lambda: None)
    pool.hand_over(claims(logbook, range(10)))
    wait_until(lambda: gate.running == 3)
    assert len(pool.backlog) == 7
    gate.open.set()
    wait_until(lambda: gate.running == 0 and len(gate.order) == 10)
    wait_until(lambda: len(pool._parked) == 3)
    outcomes = drain(pool.outcomes)
    assert len(outcomes) == 10
    assert gate.peak == 3 and gate.order == sorted(gate.order)
    assert all(outcome.error == "" for _cell, outcome in outcomes)


def test_no_more_threads_than_tasks(gate: Gate, logbook: Logbook) -> None:
    before = threading.active_count()
    pool = WorkerPool(50, logbook, lambda: None)
    pool.hand_over(claims(logbook, range(2)))
    wait_until(lambda: gate.running == 2)
    assert threading.active_count() == before + 2
    gate.open.set()
    wait_until(lambda: len(pool._parked) == 2)
    pool.hand_over(claims(logbook, range(2, 4)))
    wait_until(lambda: len(gate.order) == 4)
    assert threading.active_count() == before + 2, "those that are parked are woken"


def test_what_has_not_begun_can_be_taken_back(gate: Gate, logbook: Logbook) -> None:
    pool = WorkerPool(1, logbook, lambda: None)
    pool.hand_over(claims(logbook, range(5)))
    wait_until(lambda: gate.running == 1)
    assert [claim.id for _cell, claim in pool.take_back()] == [1, 2, 3, 4]
    gate.open.set()
    wait_until(lambda: pool.outcomes)
    assert gate.order == [0]


def test_the_foreman_is_woken_only_if_it_sleeps_and_is_needed(gate: Gate, logbook: Logbook) -> None:
    woken: list[int] = []
    pool = WorkerPool(1, logbook, lambda: woken.append(1))
    gate.open.set()
    pool.hand_over(claims(logbook, range(1)))
    wait_until(lambda: pool._parked)
    assert not woken and pool.needs_foreman()
    drain(pool.outcomes)
    assert not pool.needs_foreman(), "nothing to settle: it may sleep"
    pool.foreman_sleeps = True
    pool.hand_over(claims(logbook, range(1, 2)))
    wait_until(lambda: woken == [1])
    assert not pool.foreman_sleeps


def test_an_idle_worker_wakes_the_foreman_though_others_have_work(gate: Gate, logbook: Logbook) -> None:
    """Outcomes wait, one worker is idle, the other is busy: the Foreman has something to claim for."""
    pool = WorkerPool(2, logbook, lambda: None)
    pool.low_water = 0
    pool.hand_over(claims(logbook, range(2)))
    wait_until(lambda: gate.running == 2)
    gate.open.set()
    wait_until(lambda: len(pool._parked) == 2)
    pool.backlog.extend(claims(logbook, range(2, 3)))
    assert pool.needs_foreman()
    pool.take_back()


def test_where_no_thread_can_be_had(gate: Gate, logbook: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = WorkerPool(3, logbook, lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.hand_over(claims(logbook, range(2)))
    assert len(pool.take_back()) == 2
    pool.hand_over(claims(logbook, range(2, 4)))
    wait_until(lambda: gate.running == 2)
