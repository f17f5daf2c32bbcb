"""Batches and chains in a project's tests: in memory, they do what they do as rows."""

import random
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

import snappea
from snappea.models import Task
from snappea.testing import assert_enqueued, clear, drain, enqueued
from tests.playground.batched import add_two, close, grow, noted, work
from tests.playground.gated import only_waiting
from tests.playground.tasks import echo, fail
from tests.site import Site

NAMES = "success", "failure", "complete"


def use(site: Site, settings: Any, where: str) -> None:
    settings.SNAPPEA = site.settings | {"IN_TESTS": where}
    clear()


def random_call(chance: random.Random, number: int) -> Any:
    made: Any = chance.choice([work, work, work, fail]).s(number)
    if chance.random() < 0.3:
        made = made.then(grow.s("b", str(number))).then(echo.s(), result=True)
    return made


def random_batch(chance: random.Random, name: str, depth: int = 0) -> snappea.Batch:
    callbacks: Any = {f"on_{word}": noted.s(f"{name}-{word}") for word in NAMES if chance.random() < 0.7}
    if "on_success" in callbacks and chance.random() < 0.5:
        callbacks["on_success"] = callbacks["on_success"].then(echo.s(name))
    with snappea.batch(**callbacks) as batch:
        for number in range(chance.randrange(4)):
            random_call(chance, number).delay()
        while depth < 3 and chance.random() < 0.4:
            random_batch(chance, f"{name}{depth}", depth + 1)
    return batch


@pytest.mark.parametrize("seed", range(12))
def test_both_do_the_same(site: Site, settings: Any, seed: int) -> None:
    seen = []
    for where in ("collect", "write"):
        use(site, settings, where)
        site.ledger.path.unlink(missing_ok=True)
        batch = random_batch(random.Random(seed), "x")
        before = batch.progress()
        runs = drain(raise_failures=False)
        seen.append((before, runs, site.ledger.lines(), batch.progress()))
        assert batch.progress().is_finished
    assert seen[0] == seen[1]


@pytest.fixture
def memory(site: Site, settings: Any) -> None:
    use(site, settings, "collect")


@pytest.mark.usefixtures("memory")
def test_a_chain_with_results(site: Site) -> None:
    result = grow.s("a", "b").then(grow.s("c"), result=True).then(close).delay()
    assert_enqueued(grow, "a", "b")
    assert len(enqueued()) == 1 and result.status == "ready"
    assert drain() == 3
    assert site.ledger.keys("grown") == {"ab": 1, "abc": 1} and site.ledger.count("closed") == 1
    kept = grow.s("a", "b").set(result_ttl=60).then(close).delay()
    only_kept = grow.s("a", "b").set(keep=60).then(echo.s(), result=True).delay()
    assert drain() == 4
    row = only_kept.refresh()
    assert kept.get() == "ab" and row and row.result is None
    assert not Task.objects.exists()


@pytest.mark.usefixtures("memory")
def test_members_are_added_and_cancelled(site: Site) -> None:
    with snappea.batch(on_success=noted.s("no"), on_complete=close) as batch:
        add_two.delay()
        fail.s(1).then(noted.s("no")).apply_async(countdown=60)
        work.apply_async(("expired",), expires=-1)
    assert drain() == 3
    work.delay_many([(1,), (2,)], batch=batch)
    assert batch.progress() == (7, 3, 0, 3, 0, 1)
    assert batch.cancel(terminate=True) == 3
    assert drain() == 1 and not site.ledger.keys("noted")
    assert site.ledger.count("closed") == 1 and batch.progress() == (7, 3, 0, 0, 0, 4)


@pytest.mark.usefixtures("memory")
def test_errors_keep_nothing(site: Site) -> None:
    with pytest.raises(LookupError), snappea.batch():
        work.delay(1)
        work.apply_async((1,), batch=snappea.Batch(70))
    with pytest.raises(LookupError):
        snappea.Batch(70).progress()
    assert not enqueued()


@pytest.mark.usefixtures("memory")
def test_a_discarded_call_discards_what_follows(site: Site) -> None:
    only_waiting.delay("x")
    only_waiting.s("x").then(close).delay()
    assert [call.args for call in enqueued()] == [["x"]]
    work.apply_async((1,), priority=9, batch=None)
    work.s(1).set(priority=9).then(only_waiting.s("x")).then(close).delay()
    assert drain() == 3 and not site.ledger.count("closed")


@pytest.mark.usefixtures("memory")
def test_times_count_from_the_call_before(site: Site) -> None:
    work.s(1).then(work.s(2).set(countdown=60)).then(work.s(3).set(countdown=60)).delay()
    assert drain() == 1
    due = enqueued()[0].run_after
    assert due and timedelta(0) < due - timezone.now() <= timedelta(minutes=1)
    assert drain(including_scheduled=True) == 2
