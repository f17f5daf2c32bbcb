"""Limits that are changed at run time, with real Foremen."""

from functools import partial
from typing import Any

import pytest
from django.db import transaction

from snappea import limits
from snappea.errors import ConfigurationError, UnknownTask
from snappea.foreman.admission import Admission
from snappea.foreman.in_flight import InFlight
from snappea.inspect import why
from snappea.models import Limit, Task
from snappea.queue import store
from snappea.queue.clock import now
from snappea.queue.database import connect, transact
from tests.playground.gated import by_account, in_bursts, two_late, two_or_none
from tests.playground.tasks import record
from tests.site import Site, wait_until

both = pytest.mark.on_both


def started(site: Site, prefix: str = "") -> int:
    return sum(key.startswith(prefix) for key in site.ledger.keys("start").elements())


@both
def test_waiting_calls_have_the_new_limit(site: Site) -> None:
    site.foreman(NUM_WORKERS=8)
    two_late.delay_many((f"{number}", "wait") for number in range(9))
    wait_until(lambda: site.counts() == {"running": 2, "ready": 7})
    limits.set(two_late, max_concurrency=4)
    wait_until(lambda: site.counts() == {"running": 4, "ready": 5})
    limits.set(two_late.name, max_concurrency=5, rate_limit="1000/s")
    wait_until(lambda: site.counts() == {"running": 5, "ready": 4})
    waiting = Task.objects.filter(status="ready").latest("pk")
    reason = why(waiting)
    assert reason and reason.text.startswith("Its concurrency group is full: it may run 5 at a time.")
    limits.set(two_late, max_concurrency=0)
    (site.directory / "go").touch()
    wait_until(lambda: site.counts() == {"ready": 4})
    two_late.delay("more")
    record.delay("done")
    wait_until(lambda: site.ledger.count("end", "done"))
    wait_until(lambda: site.counts() == {"ready": 5})
    assert limits.reset(two_late) and not limits.reset(two_late)
    wait_until(lambda: site.counts() == {})


@both
def test_a_changed_rate_of_one_key_and_of_all(site: Site) -> None:
    site.foreman(NUM_WORKERS=8)
    for number in range(6):
        for account in "abc":
            in_bursts.delay(account, f"{number}")
    wait_until(lambda: site.counts() == {"ready": 9})
    limits.set(in_bursts, key="a", rate_limit="50/s")
    wait_until(lambda: started(site, "a") == 6)
    assert started(site) == 12
    limits.set(in_bursts, rate_limit=None)
    wait_until(lambda: started(site) == 18)
    for _ in range(2):
        limits.set(in_bursts, rate_limit="1/h burst 2")
    in_bursts.delay_many(("d", f"{number}") for number in range(6))
    wait_until(lambda: started(site, "d") == 2)
    record.delay("done")
    wait_until(lambda: site.ledger.count("end", "done"))
    wait_until(lambda: site.counts() == {"ready": 4})


@both
def test_changed_limits_outlive_a_foreman_that_is_killed(site: Site) -> None:
    site.settings["FOREMAN_TIMEOUT"] = 2
    foreman = site.foreman(NUM_WORKERS=8)
    two_late.delay_many((f"{number}", "wait") for number in range(6))
    wait_until(lambda: started(site) == 2)
    limits.set(two_late, max_concurrency=1)
    foreman.kill()
    site.foreman(NUM_WORKERS=8)
    wait_until(lambda: started(site) == 3)
    record.delay("done")
    wait_until(lambda: site.ledger.count("end", "done"))
    wait_until(lambda: site.counts() == {"running": 1, "ready": 5})
    limits.set(two_late, max_concurrency=None)
    wait_until(lambda: site.counts() == {"running": 6})
    (site.directory / "go").touch()
    wait_until(lambda: site.counts() == {})


@pytest.mark.on_postgres
def test_three_foremen_share_a_changed_limit(site: Site) -> None:
    limits.set(two_late, max_concurrency=None, rate_limit="1/h burst 4")
    for _ in range(3):
        site.foreman(NUM_WORKERS=4)
    for number in range(20):
        two_late.delay(f"{number}")
    wait_until(lambda: site.counts() == {"ready": 16})
    for number in range(20):
        record.delay(f"done-{number}")
    wait_until(lambda: site.counts() == {"ready": 16})
    limits.set(two_late, max_concurrency=3, rate_limit=None)
    wait_until(lambda: site.counts() == {})
    assert started(site) == 40


@both
def test_what_could_start_is_examined_again(site: Site) -> None:
    two_late.delay_many((f"{number}",) for number in range(4))
    keeper = Admission()
    with transact(connect()) as db:
        assert keeper.claim(db, now(), 0, store.peek(db), InFlight()) == []
    assert Task.objects.filter(gate=0).count() == 2
    limits.set(two_late, max_concurrency=1)
    with transact(connect()) as db:
        assert len(keeper.claim(db, now(), 10, store.peek(db), InFlight())) == 1


@both
def test_calls_that_do_not_wait_have_the_new_limit(site: Site) -> None:
    limits.set(two_or_none, max_concurrency=3)
    two_or_none.delay_many(("a", f"{number}") for number in range(5))
    site.foreman(NUM_WORKERS=8)
    wait_until(lambda: site.counts() == {})
    assert started(site) == 3


@both
def test_changes_are_part_of_a_transaction(site: Site) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic(using="snappea"):
        limits.set(two_late, max_concurrency=1)
        raise ZeroDivisionError
    assert limits.changed() == {}


@both
def test_changed_limits_are_listed(site: Site) -> None:
    limits.set(by_account, max_concurrency=3)
    limits.set(by_account, rate_limit="0.5/s burst 3")
    limits.set(by_account, key="x", rate_limit=None)
    limits.set(two_late, max_concurrency=None, rate_limit="100/h")
    assert limits.changed() == {
        by_account.name: {"max_concurrency": 3, "rate_limit": "30/m burst 3"},
        f"{by_account.name}:x": {"rate_limit": None},
        two_late.name: {"max_concurrency": None, "rate_limit": "100/h"},
    }
    assert limits.reset(by_account, key="x")
    assert Limit.objects.count() == 2


WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (two_late, {"max_concurrency": -1}, ValueError, "max_concurrency is -1; it must be a whole number of at"),
    (two_late, {"max_concurrency": False}, ValueError, "max_concurrency is False; it must be a whole number"),
    (two_late, {"rate_limit": 0}, ValueError, "rate_limit is 0; it must be a number and a unit"),
    (two_late, {}, ValueError, "Give max_concurrency or rate_limit."),
    (two_late, {"rate_limit": "5"}, ValueError, "rate_limit is '5'; it must be a number and a unit, as in"),
    (two_late, {"max_concurrency": 1, "key": "x"}, ConfigurationError, "two_late has no concurrency_key"),
    (record, {"max_concurrency": 1}, ConfigurationError, "record has no limits that could change. Give it "),
    ("nope", {"max_concurrency": 1}, UnknownTask, "Unknown task 'nope'"),
]


@pytest.mark.parametrize(("task", "options", "kind", "words"), WRONG)
def test_limits_that_cannot_be(
    site: Site, task: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        limits.set(task, **options)
    assert limits.changed() == {}


def test_limits_of_a_task_that_is_gone_are_reset(site: Site) -> None:
    Limit.objects.create(lane="shop.tasks.gone", max_concurrency=1)
    Limit.objects.create(lane="shop.tasks.gone:acme", max_concurrency=2)
    assert limits.reset("shop.tasks.gone", key="acme") and limits.reset("shop.tasks.gone")
    with pytest.raises(UnknownTask):
        limits.reset("shop.tasks.gone")


def test_celery_has_none_of_these_limits(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {**settings.SNAPPEA, "ENGINE": "celery"}
    for act in (partial(limits.set, max_concurrency=1), limits.reset):
        with pytest.raises(ConfigurationError, match="Celery runs the tasks"):
            act(two_late)
