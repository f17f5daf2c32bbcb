"""@task(unique=...): identical calls are one, and no accepted call is ever lost."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import transaction

from snappea import TaskFunction
from snappea.models import Task
from snappea.queue import operations, store
from snappea.queue.clock import now
from snappea.queue.database import connect, raw
from tests.playground.gated import (
    only_one,
    only_waiting,
    only_waiting_late,
    only_with_any_defaults,
    only_with_defaults,
)
from tests.playground.tasks import record
from tests.site import Site, wait_until

BOTH = pytest.mark.parametrize("unique", [only_waiting, only_one], ids=["waiting", "running"])
Unique = TaskFunction[..., None]


@BOTH
def test_while_one_waits_an_identical_call_is_that_one(site: Site, unique: Unique) -> None:
    first = unique.delay("x")
    before = Task.objects.values().get()
    assert unique.delay("x") == first
    assert unique.delay_many([("x",), ("x",)]) == [first, first]
    assert unique.apply_async(("x",), priority=50, countdown=60) == first
    assert Task.objects.values().get() == before


@BOTH
def test_one_that_is_scheduled_waits_as_well(site: Site, unique: Unique) -> None:
    first = unique.apply_async(("x",), countdown=60)
    assert unique.delay("x") == first and unique.apply_async(("x",), countdown=5) == first
    assert Task.objects.get().status == "scheduled"


CALLS: list[list[Callable[[], Any]]] = [
    [
        lambda: only_with_defaults.delay(1),
        lambda: only_with_defaults.delay(first=1),
        lambda: only_with_defaults.delay(1, "x"),
        lambda: only_with_defaults.delay(second="x", first=1),
        lambda: only_with_defaults.delay(1, option=False),
        lambda: only_with_defaults.apply_async((1,), {"second": "x"}),
        lambda: only_with_defaults.s("x").delay(1),
    ],
    [lambda: only_with_defaults.delay(2)],
    [lambda: only_with_defaults.delay(1, "y")],
    [lambda: only_with_defaults.delay(1, "x", 3), lambda: only_with_defaults.delay_many([(1, "x", 3)])],
    [lambda: only_with_defaults.delay(1, "x", 3, 4)],
    [lambda: only_with_defaults.delay(1, option=True)],
    [lambda: only_with_defaults.delay(1, a=1, b=2), lambda: only_with_defaults.delay(1, b=2, a=1)],
    [lambda: only_with_defaults.delay(1, a=2, b=1)],
    [lambda: only_with_defaults.delay("1")],  # type: ignore[arg-type]
    [lambda: only_with_defaults.delay(None)],  # type: ignore[arg-type]
]


def test_calls_are_identical_if_their_arguments_are_however_they_are_written(site: Site) -> None:
    for number, identical in enumerate(CALLS, 1):
        for enqueue in identical:
            enqueue()
        assert Task.objects.count() == number
    assert only_waiting.delay("1") != only_one.delay("1")


def test_a_default_of_any_kind_is_the_same_as_that_value_given(site: Site) -> None:
    call: Any = only_with_any_defaults.delay
    same = [
        call(1),
        call(1, None),
        call(1, None, []),
        call(1, None, [], (1, 2)),
        call(1, pair=[1, 2], how="red"),
        call(1, options={"a": [[1]], "b": None}),
    ]
    assert len({result.id for result in same}) == 1
    others = [
        call(1, ""),
        call(1, None, ["x"]),
        call(1, options={}),
        call(1, pair=(2, 1)),
        call(1, marker=None),
    ]
    assert len({result.id for result in (*same, *others)}) == 6


def test_tuples_and_lists_are_the_same_as_they_are_on_the_row(site: Site) -> None:
    assert only_with_defaults.delay(1, a=(1, 2)) == only_with_defaults.delay(1, a=[1, 2])  # type: ignore[arg-type]


def test_a_task_without_the_option_is_never_alone(site: Site) -> None:
    assert record.delay("x") != record.delay("x")


@BOTH
def test_delay_many_with_duplicates(site: Site, unique: Unique) -> None:
    results = unique.delay_many([(key,) for key in "abacab"])
    assert results[0] == results[2] == results[4] and results[1] == results[5]
    assert Task.objects.count() == len({result.id for result in results}) == 3


@BOTH
def test_delay_on_commit(site: Site, unique: Unique) -> None:
    with transaction.atomic():
        unique.delay_on_commit("x")
        unique.delay_on_commit("x")
        assert Task.objects.count() == 0
    assert Task.objects.count() == 1


@BOTH
def test_within_a_transaction_that_is_rolled_back(site: Site, unique: Unique) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic(using="snappea"):
        assert unique.delay("x") == unique.delay("x")
        raise ZeroDivisionError
    unique.delay("x")
    assert Task.objects.count() == 1


def test_once_it_runs_a_new_one_may_wait(site: Site) -> None:
    site.foreman()
    first = only_waiting.delay("x", "wait")
    wait_until(lambda: site.ledger.count("start", "x") == 1)
    second = only_waiting.delay("x", "wait")
    assert second != first
    wait_until(lambda: site.ledger.count("start", "x") == 2)
    (site.directory / "go").touch()
    site.wait_until_empty()
    assert site.ledger.count("end", "x") == 2 and site.counts() == {}


def test_alone_until_it_has_finished(site: Site) -> None:
    site.foreman()
    first = only_one.delay("x", "wait")
    wait_until(lambda: site.ledger.count("start", "x") == 1)
    assert only_one.delay("x", "wait") == first and site.counts() == {"running": 1}
    assert only_one.delay("other") != first
    (site.directory / "go").touch()
    site.wait_until_empty()
    only_one.delay("x", "wait")
    wait_until(lambda: site.ledger.count("end", "x") == 2)


@BOTH
def test_after_a_failure_there_may_be_a_new_one(site: Site, unique: Unique) -> None:
    site.foreman()
    first = unique.delay("x", "fail")
    wait_until(lambda: site.counts() == {"failed": 1})
    assert unique.delay("x", "fail") != first
    wait_until(lambda: site.counts() == {"failed": 2})


@BOTH
def test_after_a_cancel_there_may_be_a_new_one(site: Site, unique: Unique) -> None:
    first = unique.delay("x")
    assert first.revoke() and unique.delay("x") != first


@BOTH
def test_two_that_failed_may_both_be_tried_once_more(site: Site, unique: Unique) -> None:
    (site.directory / "broken").touch()
    foreman = site.foreman()
    for failed in ({"failed": 1}, {"failed": 2}):
        unique.delay("x", "broken")
        wait_until(partial(lambda expected: site.counts() == expected, failed))
    (site.directory / "broken").unlink()
    foreman.stop()
    assert operations.requeue(Task.objects.all()) == 2
    assert site.counts() == {"ready": 2}
    assert unique.delay("x", "broken").id in Task.objects.values_list("id", flat=True)
    assert site.counts() == {"ready": 2}
    foreman = site.foreman()
    site.wait_until_empty()
    assert site.counts() == {} and site.ledger.count("end", "x") == 2
    assert "ERROR" not in foreman.output()


def test_requeue_while_an_identical_one_runs(site: Site) -> None:
    foreman = site.foreman()
    only_one.delay("x", "wait")
    wait_until(lambda: site.ledger.count("start", "x") == 1)
    foreman.kill()
    foreman = site.foreman()
    wait_until(lambda: site.counts() == {"interrupted": 1})
    only_one.delay("x", "wait")
    wait_until(lambda: site.ledger.count("start", "x") == 2)
    assert operations.requeue(Task.objects.filter(status="interrupted")) == 1
    wait_until(lambda: site.ledger.count("start", "x") == 3)
    (site.directory / "go").touch()
    site.wait_until_empty()
    assert site.counts() == {} and "The round failed" not in foreman.output()


def test_one_that_is_tried_again_while_an_identical_one_waits_loses_nothing(site: Site) -> None:
    """It gives up its key, which the other one has now."""
    foreman = site.foreman(NUM_WORKERS=1)
    first = only_waiting.delay("x", "wait, retry")
    wait_until(lambda: site.ledger.count("start", "x") == 1)
    second = only_waiting.delay("x", "wait, retry")
    assert first != second
    (site.directory / "go").touch()
    wait_until(lambda: not site.counts())
    assert site.ledger.count("start", "x") == 4 and site.ledger.count("end", "x") == 2
    assert "ERROR" not in foreman.output()


def test_one_that_is_tried_again_is_still_alone(site: Site) -> None:
    site.foreman()
    first = only_one.delay("x", "wait, retry")
    wait_until(lambda: site.ledger.count("start", "x") == 1)
    (site.directory / "go").touch()
    while first.status is not None:
        assert only_one.delay("x", "wait, retry") == first or first.status is None
    wait_until(lambda: not site.counts())


@BOTH
def test_retries_while_others_are_enqueued_all_the_time(site: Site, unique: Unique) -> None:
    """Each accepted call ends; no conflict stalls the Foreman."""
    foreman = site.foreman(NUM_WORKERS=2)
    accepted = set()
    for _ in range(60):
        for key in "abc":
            accepted.add(unique.delay(key, "retry").id)
    wait_until(lambda: not site.counts(), f"{site.counts()}")
    assert sum(site.ledger.keys("end").values()) == len(accepted)
    assert sum(site.ledger.keys("start").values()) == 2 * len(accepted)
    assert "ERROR" not in foreman.output()


def test_one_that_was_cut_off_while_an_identical_one_waits_runs_again(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=1)
    first = only_waiting_late.delay("x", "wait")
    wait_until(lambda: site.ledger.count("start", "x") == 1)
    second = only_waiting_late.delay("x", "wait")
    assert second != first
    foreman.kill()
    foreman = site.foreman(NUM_WORKERS=1)
    assert only_waiting_late.delay("x", "wait").id in (first.id, second.id)
    wait_until(lambda: site.ledger.count("start", "x") == 2)
    (site.directory / "go").touch()
    site.wait_until_empty()
    assert site.counts() == {} and site.ledger.count("end", "x") == 2
    assert "ERROR" not in foreman.output()


def test_one_that_is_stopped_while_an_identical_one_waits_runs_again(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=1, GRACEFUL_TIMEOUT=0.01)
    only_waiting_late.delay("x", "wait")
    wait_until(lambda: site.ledger.count("start", "x") == 1)
    only_waiting_late.delay("x", "wait")
    assert foreman.stop() == 0
    assert site.counts() == {"ready": 2}
    (site.directory / "go").touch()
    site.foreman()
    site.wait_until_empty()
    assert site.counts() == {} and site.ledger.count("end", "x") == 2


def test_what_was_claimed_but_not_begun_is_given_back_beside_an_identical_one(site: Site) -> None:
    db = raw(connect())
    first = only_waiting.delay("x")
    claims = store.claim(db, now(), 1, {"default": 1})
    second = only_waiting.delay("x")
    assert second != first
    store.give_back(db, claims)
    assert site.counts() == {"ready": 2}
    assert only_waiting.delay("x") == second
    site.foreman()
    site.wait_until_empty()
    assert site.ledger.count("end", "x") == 2


@BOTH
def test_processes_that_call_at_the_same_moment_write_one_row(site: Site, unique: Unique) -> None:
    """However they interleave, each round of calls is one row, and each call returns its id."""
    code = """
import time
from tests.playground.gated import only_one, only_waiting
from tests.playground.ledger import note
begin = float(sys.argv[2])
for number in range(100):
    while time.monotonic() < begin + number * 0.01:
        time.sleep(0.0005)
    note("id", f"{number}:{globals()[sys.argv[1]].delay(str(number)).id}")
"""
    begin = time.monotonic() + 2
    callers = [site.program(code, unique.__name__, str(begin)) for _ in range(4)]
    assert [caller.wait() for caller in callers] == [0] * 4, callers[0].output()
    assert Task.objects.count() == 100
    ids = site.ledger.keys("id")
    assert len(ids) == 100 and set(ids.values()) == {4}


def test_the_same_race_with_a_foreman_at_work(site: Site) -> None:
    """With unique="running", two identical calls never run at once."""
    code = """
from tests.playground.gated import only_one
for number in range(150):
    only_one.delay(str(number % 3))
"""
    foreman = site.foreman(NUM_WORKERS=4)
    callers = [site.program(code) for _ in range(4)]
    assert [caller.wait() for caller in callers] == [0] * 4, callers[0].output()
    site.wait_until_empty()
    lines = foreman.output().splitlines()
    # on a busy machine four callers may hold the lock for longer than the Foreman waits for it
    errors = [line for line in lines if "ERROR" in line and "database is locked" not in line]
    assert site.counts() == {} and not errors
    running: set[str] = set()
    for word, key in site.ledger.lines():
        if word == "start":
            assert key not in running
            running.add(key)
        else:
            running.remove(key)
    assert not running and set(site.ledger.keys("end")) == {"0", "1", "2"}
