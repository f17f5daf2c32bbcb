"""The TaskHandle: TaskRevoked is raised in the right task, once, and nowhere else."""

import logging
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from snappea.errors import SoftTimeLimitExceeded, TaskRevoked
from snappea.queue.records import Claim, Outcome
from snappea.tasks.function import TaskFunction
from snappea.workers import execute
from snappea.workers.limits import Handle, TaskHandle
from snappea.workers.processes.child import REVOKED, ChildHandle
from tests.site import DEADLINE, Made, Site, wait_until


@pytest.fixture
def often_switching() -> Iterator[None]:
    """Switch threads more often than by default, as the Foreman does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def claim_of(made: "TaskFunction[..., Any]", number: int = 1) -> Claim:
    return Claim(0, number, 1, made.name, "[]", "{}")


class Worker:
    """A thread with its own task handle, like a worker of the pool."""

    def __init__(self, work: Callable[[TaskHandle], None]) -> None:
        self.failures: list[BaseException] = []
        self._work = work
        self._has_handle = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self._has_handle.wait(60)

    def _run(self) -> None:
        self.handle = TaskHandle()
        self._has_handle.set()
        try:
            self._work(self.handle)
        except BaseException as failure:
            self.failures.append(failure)

    def join(self) -> None:
        """Wait for its end, and check that no exception escaped."""
        self.thread.join(60)
        assert not self.thread.is_alive() and self.failures == []


def test_a_revocation_reaches_a_loop_in_another_thread_and_only_once(site: Site, made: Made) -> None:
    raised = []
    goes_on = threading.Event()

    @made
    def loop() -> None:
        try:
            while True:
                pass
        except TaskRevoked as revoked:
            raised.append(revoked)
            goes_on.wait(60)  # a second one would hit here
            for _ in range(1000):
                pass
            raise

    outcomes = []
    claim = claim_of(loop)
    person = Worker(lambda handle: outcomes.append(execute.execute(claim, handle)))
    wait_until(lambda: person.handle.revoke(claim))
    wait_until(lambda: raised)
    assert [person.handle.revoke(claim) for _ in range(3)] == [False] * 3
    goes_on.set()
    person.join()
    assert len(raised) == 1
    (outcome,) = outcomes
    assert outcome.is_revoked and outcome.reason.startswith("TaskRevoked") and outcome.retry_after is None


def test_only_the_task_that_runs_can_be_revoked() -> None:
    handle = TaskHandle()
    first, second = object(), object()
    assert not handle.revoke(first)
    handle.take(first)
    assert not handle.revoke(second)
    assert not handle.put_down()
    assert not handle.revoke(first)


def test_an_equal_claim_is_not_the_same(made: Made) -> None:
    """A claim of another round may be equal, but it does not run here."""
    handle = TaskHandle()
    taken = Claim(0, 1, 1, "some.task", "[]", "{}")
    handle.take(taken)
    assert not handle.revoke(Claim(*taken))
    assert not handle.put_down()


def test_it_is_taken_back_if_it_has_not_been_raised() -> None:
    """Interrupted at the moment when it finishes: no exception arrives later."""
    hits: list[bool] = []

    def revoke(handle: TaskHandle, claim: object) -> None:
        hits.append(handle.revoke(claim))

    def work(handle: TaskHandle) -> None:
        for number in range(500):
            claim = object()
            handle.take(claim)
            other = threading.Thread(target=revoke, args=(handle, claim))
            try:
                other.start()
                for _ in range(number % 50):
                    pass
            except TaskRevoked:
                pass
            try:
                handle.put_down()
            except TaskRevoked:
                handle.put_down()
            other.join()

    person = Worker(work)
    person.join()
    assert len(hits) == 500


# it may hit a finalizer: Python only reports exceptions of those
@pytest.mark.usefixtures("often_switching")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_never_hits_the_worker_itself_however_it_comes(site: Site, made: Made) -> None:
    """Thousands of tiny tasks, revoked at random moments: each succeeds or is revoked, nothing else."""
    current: list[Claim | None] = [None]
    outcomes: list[Outcome] = []
    hits: set[int] = set()
    revoked: set[int] = set()
    deadline = time.monotonic() + DEADLINE

    @made
    def tiny() -> None:
        for _ in range(50):
            pass

    def work(handle: TaskHandle) -> None:
        while len(outcomes) < 3000 or (len(revoked) < 50 and time.monotonic() < deadline):
            claim = current[0] = claim_of(tiny, len(outcomes))
            outcome = execute.execute(claim, handle)
            outcomes.append(outcome)
            if outcome.is_revoked:
                revoked.add(claim.id)
        current[0] = None

    person = Worker(work)
    dice = random.Random(1)
    while person.thread.is_alive():
        claim = current[0]
        for _ in range(dice.randrange(300)):
            pass
        if claim and person.handle.revoke(claim):
            hits.add(claim.id)
    person.join()
    assert revoked <= hits and 50 <= len(revoked) < len(outcomes)
    for outcome in outcomes:
        assert outcome.is_revoked == bool(outcome.error), outcome.error
        assert not outcome.error or outcome.reason.startswith("TaskRevoked"), outcome.error


def test_a_task_that_was_blocked_outside_python_is_reached_when_it_returns(site: Site, made: Made) -> None:
    after = []
    reader, writer = os.pipe()

    @made
    def read() -> None:
        os.read(reader, 1)
        for _ in range(1000):
            pass
        after.append("too far")

    outcomes = []
    claim = claim_of(read)
    person = Worker(lambda handle: outcomes.append(execute.execute(claim, handle)))
    wait_until(lambda: person.handle.revoke(claim))
    time.sleep(0.05)  # for it to end, if it could
    assert not outcomes
    os.write(writer, b"x")
    person.join()
    os.close(reader)
    os.close(writer)
    assert outcomes[0].is_revoked and not after


def test_a_task_may_catch_it_and_return(site: Site, made: Made) -> None:
    """Then it has succeeded."""

    @made
    def stubborn() -> None:
        try:
            while True:
                pass
        except TaskRevoked:
            return

    outcomes = []
    claim = claim_of(stubborn)
    person = Worker(lambda handle: outcomes.append(execute.execute(claim, handle)))
    wait_until(lambda: person.handle.revoke(claim))
    person.join()
    assert not outcomes[0].error and not outcomes[0].is_revoked


def test_except_exception_does_not_stop_it() -> None:
    assert not issubclass(TaskRevoked, Exception)


def test_a_forked_child_is_not_affected(site: Site, made: Made) -> None:
    """The parent's task is revoked; the child runs to its own end."""
    children: list[int] = []
    reader, writer = os.pipe()

    @made
    def fork() -> None:
        if (child := os.fork()) == 0:
            os.read(reader, 1)  # until the parent was revoked
            os._exit(42 if sum(range(10_000)) else 1)
        children.append(child)
        while True:
            pass

    outcomes = []
    claim = claim_of(fork)
    person = Worker(lambda handle: outcomes.append(execute.execute(claim, handle)))
    wait_until(lambda: children)
    assert person.handle.revoke(claim)
    person.join()
    os.write(writer, b"x")
    _pid, status = os.waitpid(children[0], 0)
    os.close(reader)
    os.close(writer)
    assert os.waitstatus_to_exitcode(status) == 42 and outcomes[0].is_revoked


def make_records(is_raised: Callable[[], bool]) -> None:
    """Make log records for ever. A function of its own: in 3.13, `try` does not cover a loop's jump back."""
    while not is_raised():
        logging.makeLogRecord({})


def is_ended(handle: Handle, is_raised: Callable[[], bool]) -> bool:
    """Make log records in a task until its limit ends it. Return whether the exception leaves it."""
    try:
        handle.take(handle)
        handle.limit(random.uniform(0.0002, 0.001))
        make_records(is_raised)
    except SoftTimeLimitExceeded:
        return True
    finally:
        handle.put_down()
    return False


def test_a_log_record_does_not_swallow_a_limit_in_a_thread() -> None:
    """LogRecord catches what the names that it asks for raise: without care, some of these are lost."""
    ended: list[bool] = []

    def work(handle: TaskHandle) -> None:
        for _ in range(200):
            ended.append(is_ended(handle, lambda: time.monotonic() > handle.raised_at + 0.2))

    worker = Worker(work)
    while worker.thread.is_alive():
        worker.handle.enforce_limit(time.monotonic())
        time.sleep(0.0001)
    worker.join()
    assert len(ended) == 200 and all(ended)


def test_a_log_record_does_not_swallow_a_limit_in_a_process() -> None:
    numbers = signal.SIGALRM, REVOKED
    before = [signal.getsignal(number) for number in numbers]
    try:
        for _ in range(200):
            handle = ChildHandle(None, math.inf)
            assert is_ended(handle, partial(getattr, handle, "_ending"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
