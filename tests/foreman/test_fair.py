"""Fair share: the keys of `fair_by` take turns in the line of their queue."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from snappea import task
from snappea.errors import TaskDefinitionError
from snappea.models import Task
from snappea.queue import groups, operations, store
from snappea.queue.clock import now
from snappea.queue.database import connect, transact
from snappea.queue.records import Claim
from tests.playground.gated import of_tenant, of_tenant_alone
from tests.playground.tasks import nothing
from tests.site import Site, wait_until

pytestmark = pytest.mark.on_both


def claim(limit: int = 1) -> list[Claim]:
    """Claim as a round of the Foreman does."""
    moment = now()
    with transact(connect()) as db:
        store.promote(db, moment)
        groups.block_new(db)
        return store.claim(db, moment, limit, {"default": limit})


def tenants(count: int) -> str:
    """Return the tenants of so many claims, one at a time."""
    claims = [one for _ in range(count) for one in claim()]
    return "".join(json.loads(one.args)[0] if one.args != "[]" else "-" for one in claims)


def fill(tenant: str | None, count: int) -> None:
    """Enqueue some tasks of a tenant."""
    of_tenant.delay_many([(tenant,)] * count)


def test_a_tenant_with_few_tasks_does_not_wait_for_one_with_many(site: Site) -> None:
    fill("a", 2500)  # of which a round sorts in AT_ONCE
    assert tenants(5) == "aaaaa"
    fill("b", 3)
    assert sorted(tenants(10)) == sorted("bbb" + "a" * 7)
    assert claim() and "b" not in tenants(10)


@pytest.mark.parametrize("many", ["a", "m", "z"])
def test_one_round_reaches_each_of_many_tenants(site: Site, many: str) -> None:
    fill(many, 2500)
    for few in ("b", "n", "y"):
        fill(few, 3)
    first = [json.loads(one.args)[0] for one in claim(12)]
    assert sorted(first) == sorted("bny" * 3 + many * 3)
    assert Task.objects.filter(gate=1).count() >= 500


def test_tenants_with_many_tasks_take_turns(site: Site) -> None:
    fill("a", 20)
    fill("b", 20)
    fill("c", 20)
    for _ in range(20):
        assert sorted(tenants(3)) == ["a", "b", "c"]


def test_tasks_of_a_tenant_keep_their_order(site: Site) -> None:
    fill("a", 10)
    ids = [one.id for one in claim(3)]
    fill("b", 5)
    ids += [one.id for _ in range(12) for one in claim()]
    of_a = Task.objects.filter(fair_key="a").values_list("pk", flat=True)
    assert [pk for pk in ids if pk in of_a] == sorted(of_a)


def test_tasks_without_a_key_wait_in_line(site: Site) -> None:
    fill("a", 4)
    assert claim()
    nothing.delay()
    fill(None, 1)
    fill("a", 1)
    assert Task.objects.filter(fair_key=None, turn=None, gate=0).count() == 2
    assert [one.id for _ in range(6) for one in claim()] == [2, 3, 4, 5, 7, 6]


def test_scheduled_tasks_that_are_due_at_once_do_not_delay_others(site: Site) -> None:
    due = timezone.now() + timedelta(days=1)
    for _ in range(20):
        of_tenant.apply_async(("a",), eta=due)
    fill("a", 2)
    assert tenants(1) == "a"
    fill("b", 2)
    Task.objects.filter(status="scheduled").update(run_after=timezone.now() - timedelta(days=1))
    assert sorted(tenants(4)) == ["a", "a", "b", "b"]


def test_what_is_given_back_keeps_its_place_and_what_is_requeued_joins_the_end(site: Site) -> None:
    fill("a", 5)
    (first,) = claim()
    with transact(connect()) as db:
        store.give_back(db, [first])
    assert [one.id for one in claim()] == [first.id]
    Task.objects.filter(pk=first.id).update(status="failed", finished_at=timezone.now())
    assert operations.requeue(Task.objects.filter(pk=first.id)) == 1
    assert [one.id for _ in range(5) for one in claim()][-1] == first.id


def test_turns_hold_within_a_concurrency_group_as_well(site: Site) -> None:
    for tenant in "aaaaaabb":
        of_tenant_alone.delay(tenant)
    foreman = site.foreman(NUM_WORKERS=4)
    site.wait_until_empty()
    foreman.stop()
    started = [key for word, key in site.ledger.lines() if word == "start"]
    assert len(started) == 8
    assert "b" in started[:2] and started[:4].count("b") == 2


def test_a_round_with_only_newcomers_counts_them_as_ready(site: Site) -> None:
    fill("a", 3)
    assert store.depth() == 3
    assert claim(3)


def test_every_task_runs_once_even_if_foremen_are_killed(site: Site) -> None:
    """One Foreman on SQLite, three on PostgreSQL."""
    foremen = 1 if connect().vendor == "sqlite" else 3
    site.settings["FOREMAN_TIMEOUT"] = 2
    of_tenant.delay_many([("a", f"-{number}") for number in range(1500)])
    of_tenant.delay_many([("b", f"-{number}", "retry") for number in range(10)])
    of_tenant.delay("c", "", "fail")
    first = [site.foreman(NUM_WORKERS=2) for _ in range(foremen)]
    wait_until(lambda: site.ledger.count("start", "b-3"))
    first[0].kill()
    site.foreman(NUM_WORKERS=2)
    wait_until(lambda: not Task.objects.filter(status__in=("ready", "scheduled", "running")).exists())
    lost = Task.objects.filter(status="interrupted").count()
    assert Task.objects.filter(fair_key="c", status__in=("failed", "interrupted")).count() == 1
    ended = [key for word, key in site.ledger.lines() if word == "end"]
    assert len(ended) == len(set(ended)) and 1510 - lost <= len(ended) <= 1510
    started = [key for word, key in site.ledger.lines() if word == "start"]
    assert max(started.index(f"b-{number}") for number in range(10) if f"b-{number}" in started) < 1400


def test_a_broadcast_takes_no_turn(site: Site) -> None:
    """One Foreman on SQLite, two on PostgreSQL; each runs it, and again when it fails."""
    count = 1 if connect().vendor == "sqlite" else 2
    fill("a", 2500)
    foremen = [site.foreman(NUM_WORKERS=2) for _ in range(count)]
    results = of_tenant.broadcast("b", "", "retry")
    assert len(results) == count
    wait_until(lambda: site.ledger.count("end", "b") == count)
    wait_until(lambda: all(result.status is None for result in results))
    assert site.ledger.count("start", "b") == 2 * count
    assert Task.objects.filter(fair_key="a").exists()
    for foreman in foremen:
        assert "of_tenant" in foreman.output()


def test_a_key_that_cannot_be_kept_is_refused(site: Site) -> None:
    long = task(name="long", fair_by=lambda: "x" * 201)(lambda: None)
    with pytest.raises(ValueError, match="long: fair_by returned 201 characters, and 200 is the most"):
        long.delay()
    other = task(name="other", fair_by=lambda tenant: tenant)(lambda: None)
    with pytest.raises(TypeError, match="other: fair_by is called with the arguments of the task"):
        other.delay()
    with pytest.raises(TaskDefinitionError, match="fair_by=3 must be a function of the arguments"):
        task(name="number", fair_by=3)(lambda: None)  # type: ignore[call-overload]
