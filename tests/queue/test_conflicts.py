"""Calls after an identical one: `unique_for`, `on_conflict`, `debounce`, `throttle`."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from snappea import task
from snappea.errors import AlreadyEnqueued
from snappea.models import Task, UniqueUntil
from snappea.queue import groups, operations, unique
from snappea.queue.clock import later, now
from snappea.queue.database import connect, raw
from tests.playground.gated import (
    debounced,
    hourly,
    latest,
    latest_in_group,
    only_by_key,
    only_or_error,
    throttled,
)
from tests.site import Made, Site, wait_until


def row(result: Any) -> Task:
    """Return the row of a call."""
    return Task.objects.get(pk=result.id)


# by a part of the arguments


def test_calls_are_identical_if_the_function_says_so(site: Site) -> None:
    first = only_by_key.delay("x", 1)
    assert only_by_key.delay("x", value=2) == first != only_by_key.delay("y", 1)
    assert json.loads(row(first).args) == ["x", 1]


def test_a_function_may_return_any_value(site: Site, made: Made) -> None:
    keys = iter([(1, None), [1, None], {"a": timedelta(1)}, {"a": timedelta(1)}, "1", 1])

    def ship(number: int) -> None: ...

    shipped = task(name="tests.ship", unique=lambda number: next(keys))(ship)
    ids = [shipped.delay(number).id for number in range(6)]
    assert ids[0] == ids[1] != ids[2] == ids[3] and len(set(ids)) == 4


# unique_for


def test_no_second_call_even_after_it_ran(site: Site) -> None:
    foreman = site.foreman()
    first = hourly.delay("x")
    site.wait_until_empty()
    assert hourly.delay("x") == first and first.status is None
    assert hourly.delay_many([("x",), ("x",), ("y",)])[:2] == [first, first]
    site.wait_until_empty()
    foreman.kill()
    site.foreman()
    assert hourly.delay("x") == first
    site.wait_until_empty()
    assert site.ledger.keys("end") == {"x": 1, "y": 1}


def test_afterwards_there_may_be_another_one(site: Site) -> None:
    first = hourly.delay("x")
    assert first.revoke() and hourly.delay("x") != first, "cancelled: it did not run"
    UniqueUntil.objects.update(until=timezone.now())
    second = hourly.delay("x")
    assert row(second).status == "ready", "an identical one waits"
    row(second).delete()
    third = hourly.delay("x")
    assert third != second and UniqueUntil.objects.get().task_id == third.id
    assert UniqueUntil.objects.get().until > timezone.now() + timedelta(minutes=59)


def test_a_cancel_takes_it_back_in_the_same_transaction(site: Site) -> None:
    """Otherwise a crash between the two would refuse identical calls of a task that is gone."""
    hourly.delay("x")
    site.sql("CREATE TRIGGER refuse BEFORE DELETE ON snappea_task BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(IntegrityError, match="no"):
        operations.cancel(Task.objects.all())
    assert Task.objects.count() == UniqueUntil.objects.count() == 1
    site.sql("DROP TRIGGER refuse")
    site.sql(
        "CREATE TRIGGER refuse BEFORE DELETE ON snappea_uniqueuntil BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with pytest.raises(IntegrityError, match="no"):
        operations.cancel(Task.objects.all())
    assert Task.objects.count() == UniqueUntil.objects.count() == 1


def test_a_rollback_takes_it_back(site: Site) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic(using="snappea"):
        assert hourly.delay("x") == hourly.delay("x")
        raise ZeroDivisionError
    assert not UniqueUntil.objects.exists()
    hourly.delay("x")
    assert Task.objects.count() == UniqueUntil.objects.count() == 1


def test_what_is_over_is_forgotten(site: Site) -> None:
    hourly.delay("x")
    throttled.delay("x")
    assert not unique.forget(raw(connect()), later(now(), 60))
    assert UniqueUntil.objects.count() == 1
    over = [UniqueUntil(key=str(number), task_id=1, until=timezone.now()) for number in range(1500)]
    UniqueUntil.objects.bulk_create(over)
    assert unique.forget(raw(connect()), now()) and UniqueUntil.objects.count() == 501
    UniqueUntil.objects.bulk_create(over, ignore_conflicts=True)
    site.foreman()
    wait_until(lambda: UniqueUntil.objects.count() == 1)


def test_throttled_calls_of_several_processes(site: Site) -> None:
    """However they interleave, in each period one is enqueued, and one ran before the next."""
    code = """
import time
from tests.playground.gated import throttled
begin = time.monotonic()
while time.monotonic() < begin + 2:
    throttled.delay("x")
"""
    site.foreman()
    callers = [site.program(code) for _ in range(3)]
    assert [caller.wait() for caller in callers] == [0] * 3, callers[0].output()
    site.wait_until_empty()
    moments = [float(line.split()[0]) for line in site.ledger.text().splitlines() if " start " in line]
    assert 2 <= len(moments) <= 2 + (moments[-1] - moments[0]) / 0.3


# on_conflict


def test_a_call_replaces_the_one_that_waits(site: Site) -> None:
    first = latest.apply_async(("x", 1), countdown=600, priority=3)
    assert latest.apply_async(("x", 2), countdown=60, expires=600) == first
    found = row(first)
    assert (json.loads(found.args), found.priority, found.status) == (["x", 2], 0, "scheduled")
    assert found.run_after and found.run_after < timezone.now() + timedelta(seconds=61) and found.expires_at
    assert latest.delay("x", value=3) == first and latest.delay("y", 1) != first
    found = row(first)
    assert (found.kwargs, found.status, found.run_after) == ('{"value":3}', "ready", None)
    site.foreman()
    site.wait_until_empty()
    assert site.ledger.keys("end") == {"x-3": 1, "y-1": 1}
    assert latest.delay("x", 4) != first


@pytest.mark.on_both
def test_the_tags_of_the_later_call_count(site: Site) -> None:
    first = latest.apply_async(("x", 1), countdown=600, tags=["old", "both"])
    assert latest.apply_async(("x", 2), countdown=600, tags=["both", "new"]) == first
    assert row(first).tags == " both new "
    assert latest.apply_async(("x", 3), countdown=600) == first
    assert row(first).tags == ""


def test_a_call_that_is_replaced_leaves_its_group(site: Site) -> None:
    first = latest_in_group.delay("x", 1)
    other = latest_in_group.delay("y", 1)
    db = raw(connect())
    for newcomer in groups.block_new(db):
        groups.admit(db, newcomer.lane or "", now(), {})
    assert (row(first).gate, row(other).gate) == (0, 2)
    latest_in_group.delay("x", 2)
    assert row(first).lane == f"{latest_in_group.name}:2" and (row(first).gate, row(other).gate) == (1, 1)
    site.foreman()
    site.wait_until_empty()
    assert site.ledger.keys("end") == {"x-2": 1, "y-1": 1}


def test_replaced_all_the_time_by_several_processes(site: Site) -> None:
    """The last value of each process is not lost, whatever was replaced and whatever had started."""
    code = """
from tests.playground.gated import latest
from tests.playground.ledger import note
for value in range(150):
    note("id", f"{latest.delay(sys.argv[1][0], value).id}")
"""
    foreman = site.foreman(NUM_WORKERS=2)
    callers = [site.program(code, name) for name in ("a", "b", "ab", "c")]
    assert [caller.wait() for caller in callers] == [0] * 4, callers[0].output()
    site.wait_until_empty()
    assert {"a-149", "b-149", "c-149"} <= site.ledger.keys("end").keys() and site.counts() == {}
    assert site.ledger.keys("end").total() == len(site.ledger.keys("id"))
    assert "The round failed" not in foreman.output()


def test_debounced(site: Site) -> None:
    first = debounced.delay("x", 1)
    Task.objects.update(run_after=timezone.now() + timedelta(seconds=1))
    assert debounced.delay("x", 2) == first
    found = row(first)
    assert found.run_after and found.run_after > timezone.now() + timedelta(minutes=59)
    Task.objects.update(enqueued_at=timezone.now() - timedelta(minutes=80))
    debounced.delay("x", 3)
    found = row(first)
    assert found.run_after and found.run_after < timezone.now() + timedelta(minutes=11), "debounce_max"
    Task.objects.update(enqueued_at=timezone.now() - timedelta(minutes=90))
    debounced.delay("x", 4)
    assert (row(first).status, json.loads(row(first).args)) == ("ready", ["x", 4])
    debounced.apply_async(("y",), countdown=0)
    assert Task.objects.get(args='["y"]').status == "ready", "at once"


def test_a_call_that_is_refused(site: Site) -> None:
    first = only_or_error.delay("x")
    with pytest.raises(
        AlreadyEnqueued, match=f"only_or_error was not enqueued: task #{first.id} is"
    ) as found:
        only_or_error.delay("x")
    assert found.value.id == first.id
    with pytest.raises(AlreadyEnqueued):
        only_or_error.delay_many([("y",), ("z",), ("x",)])
    assert site.counts() == {"ready": 1}, "none of them was enqueued"
    with transaction.atomic(using="snappea"):
        with pytest.raises(AlreadyEnqueued):
            only_or_error.delay("x")
        only_or_error.delay("y")
    assert site.counts() == {"ready": 2}


@pytest.mark.on_both
def test_none_of_many_calls_is_kept_in_the_transaction_of_the_caller(site: Site) -> None:
    only_or_error.delay("x")
    with transaction.atomic(using="snappea"):
        only_or_error.delay("before")
        with pytest.raises(AlreadyEnqueued):
            only_or_error.delay_many([("y",), ("z",), ("x",)])
        only_or_error.delay_many([("after",), ("z",)])
    found = Task.objects.order_by("id").values_list("args", flat=True)
    assert [json.loads(args) for args in found] == [["x"], ["before"], ["after"], ["z"]]


# without a queue


def test_eagerly_each_call_runs(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"TASK_ALWAYS_EAGER": True}
    for _ in range(2):
        hourly.delay("x")
        debounced.delay("x", 1)
    assert site.ledger.keys("end") == {"x": 2, "x-1": 2}
