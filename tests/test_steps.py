"""Durable steps: a step that has returned never runs again, wherever the Foreman is killed."""

import itertools
import json
import os
import random
import signal
from functools import partial
from typing import Any

import pytest
from django.db import connections

from snappea import TaskFunction
from snappea.models import Task
from snappea.queue import operations, store
from snappea.queue.clock import now
from snappea.queue.database import connect, raw
from snappea.workers.execute import execute
from snappea.workers.limits import Handle
from tests.playground import durable
from tests.playground.durable import STEPS, count, pay, pay_async, pay_isolated, refund, stand
from tests.site import DEADLINE, Process, Site, wait_until

#: How many lines run in an attempt that does all steps, about.
LINES = 150
KINDS: dict[str, TaskFunction[[], Any]] = {"thread": pay, "process": pay_isolated, "loop": pay_async}


def assert_each_ran_once(site: Site) -> int:
    """Check the ledger: only a step in progress may run again. Return how many attempts there were."""
    kept: list[str] = []
    for word, key in site.ledger.lines():
        if word == "start":
            assert key not in kept, f"{key} had returned"
            assert set(STEPS[: STEPS.index(key)]) <= set(kept), f"{key} began too soon"
        elif word == "kept":
            kept.append(key)
    attempts = site.ledger.keys("attempt").total()
    assert set(kept) == set(STEPS)
    assert site.ledger.keys("start").total() <= len(STEPS) + attempts - 1, "one step for each interruption"
    return attempts


def run_with_kills(site: Site, task: TaskFunction[[], Any], numbers: list[int]) -> int:
    """Run a task that kills its Foreman at these lines, an attempt after the other. Return how many did."""
    (site.directory / "kill-at").write_text(" ".join(map(str, numbers)))
    (site.directory / "ledger").unlink(missing_ok=True)
    task.delay()
    kills = 0
    while not site.ledger.count("end", "pay"):
        foreman = site.manage("runsnappea")
        wait_until(partial(_has_ended, site, foreman))
        kills += int(foreman.popen.poll() is not None)
    wait_until(lambda: not Task.objects.exists())
    assert assert_each_ran_once(site) <= kills + 1
    foreman.stop()
    return kills


def _has_ended(site: Site, foreman: Process) -> bool:
    assert not Task.objects.filter(status__in=("failed", "interrupted")).exists(), Task.objects.get().error
    return foreman.popen.poll() is not None or bool(site.ledger.count("end", "pay"))


@pytest.mark.long
def test_a_kill_before_each_line(site: Site, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Foreman, which starts slowly: a fork is the worker, and the test is the next Foreman."""
    monkeypatch.setattr(durable, "_foreman", os.getpid)
    settings.SNAPPEA = {**site.settings, "MAX_INTERRUPTIONS": 2}
    for number in itertools.count(1):
        (site.directory / "kill-at").write_text(str(number))
        (site.directory / "ledger").unlink(missing_ok=True)
        pay.delay()
        if is_run_in_a_fork():
            break  # there are no more lines
        row = Task.objects.get()
        started_at = site.sql("SELECT started_at FROM snappea_task")[0][0]
        assert store.interrupt(raw(connect()), now(), (row.pk, row.claims, started_at), "killed") == "ready"
        assert is_run_in_a_fork()
        assert_each_ran_once(site)
    assert number > LINES


def is_run_in_a_fork() -> bool:
    """Run the next task in a fork of this process, and return whether it was not killed."""
    connections.close_all()
    if (pid := os.fork()) == 0:
        try:
            claim = store.claim_any(raw(connect()), now())
            store.settle(raw(connect()), now(), [execute(claim, Handle(), pay)] if claim else [])
        finally:
            os._exit(0)
    _pid, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


@pytest.mark.long
@pytest.mark.on_both
@pytest.mark.parametrize("kind", KINDS)
def test_kills_between_any_two_lines(site: Site, kind: str) -> None:
    site.settings |= {"MAX_INTERRUPTIONS": 1000, "FOREMAN_TIMEOUT": 2}
    chance = random.Random(kind)
    repetitions = (
        2 if connect().vendor == "sqlite" else 1
    )  # on PostgreSQL a dead Foreman is replaced after a while
    rounds = [[chance.randrange(1, LINES) for _attempt in range(4)] for _round in range(repetitions)]
    kills = sum(run_with_kills(site, KINDS[kind], numbers) for numbers in rounds)
    assert kills


def _has_more(site: Site, seen: int) -> bool:
    return len(site.ledger.keys("count")) > seen


@pytest.mark.long
@pytest.mark.on_both
def test_more_deploys_than_max_interruptions(site: Site) -> None:
    """A task that makes progress survives them; one that makes none is kept as interrupted."""
    site.settings["GRACEFUL_TIMEOUT"] = 0.1
    count.delay(7, 1.0)
    for deploy in range(5):
        foreman = site.foreman()
        seen = len(site.ledger.keys("count"))
        wait_until(partial(_has_more, site, seen))
        assert foreman.stop() == 0
        found = Task.objects.get()
        assert (found.status, found.interruptions) == ("ready", deploy + 1)
    stand.delay(DEADLINE)
    site.foreman(NUM_WORKERS=2)
    wait_until(lambda: site.ledger.count("end", "count"))
    site.processes[-1].stop()
    for attempt in (2, 3):
        foreman = site.foreman()
        wait_until(partial(site.ledger.count, "attempt", attempt))
        foreman.stop()
    assert Task.objects.get().status == "interrupted"


@pytest.mark.on_both
def test_retries_and_requeues_keep_finished_steps(site: Site) -> None:
    site.foreman()
    refund.delay(1)
    wait_until(lambda: site.ledger.count("end", "charge"))
    assert site.ledger.keys("start") == {"reserve": 1, "charge": 1}
    failed = refund.delay(2).id
    wait_until(lambda: Task.objects.filter(pk=failed, status="failed").exists())
    assert json.loads(Task.objects.get(pk=failed).steps) == {"reserve": ["reserve"]}
    operations.requeue(Task.objects.filter(pk=failed))
    wait_until(lambda: Task.objects.get(pk=failed).attempts == 2)
    wait_until(lambda: Task.objects.filter(pk=failed, status="failed").exists())
    assert site.ledger.count("start", "reserve") == 2, "once for each of the two tasks"
