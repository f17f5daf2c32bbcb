"""Chains: `a.s().then(b.s())` enqueues b when a has succeeded, on both databases."""

import json
import random
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

import snappea
from snappea.errors import UnserializableResult
from snappea.models import Batch as Row
from snappea.models import Task
from snappea.queue import operations, recovery, store
from snappea.queue.clock import now
from snappea.queue.database import connect, transact
from snappea.queue.logbook import Entry, Note
from snappea.queue.records import Claim, Outcome
from snappea.testing import drain
from snappea.workers import execute
from tests.playground.batched import close, grow, grow_isolated, grow_late, grow_on_loop, noted, work
from tests.playground.gated import only_waiting
from tests.playground.tasks import echo, fail
from tests.site import Made, Site, wait_until

both = pytest.mark.on_both


def chain(*more: str, first: Any = grow) -> snappea.Signature:
    """Return a chain that puts words together."""
    made: snappea.Signature = first.s("", more[0])
    for word in more[1:]:
        made = made.then(first.s(word), result=True)
    return made


def waiting() -> list[tuple[str, Any]]:
    rows = Task.objects.filter(status__in=("ready", "scheduled")).order_by("pk")
    return [
        (name.rpartition(".")[2], json.loads(args)) for name, args in rows.values_list("task_name", "args")
    ]


def claim() -> Claim:
    with transact(connect()) as db:
        found = store.claim_any(db, now())
    assert found
    return found


def settle(*outcomes: Outcome) -> None:
    with transact(connect()) as db:
        store.settle(db, now(), outcomes)


@both
def test_calls_run_one_after_the_other(site: Site) -> None:
    result = work.s(1).then(noted.s("two")).then(close).delay()
    assert waiting() == [("work", [1])] and result.status == "ready"
    expected: list[list[Any]] = [[("noted", ["two"])], [("close", [])], []]
    for following in expected:
        settle(Outcome(claim(), 0.1))
        assert waiting() == following
    assert all(row.finished_at for row in Row.objects.all())


@both
def test_a_result_is_passed_on_request(site: Site) -> None:
    grow.s("a", "b").then(grow.s("c"), result=True).then(grow.s("e", "f")).then(echo.s(), result=True).delay()
    assert drain() == 4
    assert site.ledger.keys("grown") == {"ab": 1, "abc": 1, "ef": 1}
    assert site.ledger.count("echo", "(('ef',),{})") == 1
    assert not Task.objects.exists()


@both
@pytest.mark.parametrize("options", [{}, {"result_ttl": 60}, {"keep": 60}])
def test_a_result_is_kept_only_as_the_options_say(site: Site, options: dict[str, int]) -> None:
    first = grow.s("a", "b").set(**options).then(echo.s(), result=True).delay()
    assert drain() == 2
    row = Task.objects.filter(pk=first.id).first()
    assert (row and row.result) == ('"ab"' if "result_ttl" in options else None)
    assert bool(row) == bool(options)


@both
@pytest.mark.parametrize("value", [None, "", 'ü"\\\n', [], {"a": [1, None]}, "null", "[null, 1]", 1.5])
def test_any_result_arrives(site: Site, value: Any) -> None:
    echo.s(value).then(echo.s("x"), result=True).delay()
    first = claim()
    assert first.extras.passes_result
    settle(Outcome(first, 0.1, result=json.dumps(value)))
    assert waiting() == [("echo", [value, "x"])]


def test_a_result_that_is_not_json_is_a_failure(site: Site, made: Made) -> None:
    @made
    def strange() -> Any:
        return {1}

    strange.s().then(echo.s(), result=True).delay()
    with pytest.raises(UnserializableResult, match="result=True"):
        drain()
    assert Task.objects.get().status == "failed"
    strange.s().then(echo.s()).delay()
    assert drain() == 2


@both
def test_a_failure_ends_it_until_it_is_requeued(site: Site) -> None:
    chain("a", "b", "c").delay()
    settle(Outcome(claim(), 0.1, result='"a"'))
    settle(Outcome(claim(), 0.1, "error", "reason", retry_after=0.0))
    drain(including_scheduled=True, raise_failures=False)
    assert site.ledger.keys("grown") == {"ab": 1, "abc": 1}
    chain("x", "y", "z").delay()
    settle(Outcome(claim(), 0.1, result='"x"'))
    settle(Outcome(claim(), 0.1, "error", "reason"))
    assert waiting() == [] and Task.objects.get().status == "failed"
    assert operations.requeue(Task.objects.all()) == 1
    assert drain() == 2
    assert site.ledger.keys("grown") == {"ab": 1, "abc": 1, "xy": 1, "xyz": 1}
    assert not Task.objects.exists() and all(row.finished_at for row in Row.objects.all())


@both
def test_a_cancelled_call_ends_it(site: Site) -> None:
    result = chain("a", "b").delay()
    assert result.revoke()
    assert waiting() == [] and all(row.finished_at for row in Row.objects.all())


@both
def test_it_is_a_part_of_a_batch(site: Site) -> None:
    with snappea.batch(on_success=noted.s("all").then(noted.s("and more"))) as batch:
        result = chain("a", "b", "c").delay()
        work.delay(1)
    assert result.status == "ready"
    assert drain() == 6
    assert batch.progress() == (4, 4, 0, 0, 0, 0)
    assert [line[1:] for line in site.ledger.lines()][-2:] == [["all"], ["and", "more"]]
    assert site.ledger.keys("grown")["abc"] == 1


@both
def test_a_batch_fails_with_its_chain(site: Site) -> None:
    with snappea.batch(on_success=noted.s("no"), on_failure=noted.s("yes"), on_complete=close):
        work.s(1).then(fail.s(2)).then(noted.s("no")).delay()
    drain(raise_failures=False)
    assert site.ledger.keys("noted") == {"yes": 1} and site.ledger.count("closed") == 1


@both
def test_each_callback_may_be_a_chain(site: Site) -> None:
    made: Any = {
        f"on_{name}": noted.s(name).then(echo.s(name)) for name in ("success", "failure", "complete")
    }
    with snappea.batch(**made):
        work.delay(1)
    with snappea.batch(**made):
        fail.delay(1)
    drain(raise_failures=False)
    assert site.ledger.keys("echo") == {
        "(('success',),{})": 1,
        "(('failure',),{})": 1,
        "(('complete',),{})": 2,
    }


def test_it_can_be_put_together(site: Site) -> None:
    tail = grow.s("c").then(grow.s("d"), result=True)
    made = grow.s("a", "b").then(tail, result=True).then(close.si(), result=True)
    assert len(tail.followers) == 1 and len(made.followers) == 3
    made.set(priority=5).delay()
    assert Task.objects.get().priority == 5
    assert drain() == 4
    assert site.ledger.keys("grown") == {"ab": 1, "abc": 1, "abcd": 1} and site.ledger.count("closed") == 1
    assert chain("x", "y", "z").apply().get() == "xyz"


@both
def test_members_that_a_call_adds_are_waited_for_but_their_results_are_not_passed(site: Site) -> None:
    echo.s().then(echo.s("after"), result=True).delay()
    first = claim()
    with snappea.Batch(first.extras.batch_id or 0):
        work.delay(1)
    second = claim()
    assert first.extras.passes_result and not second.extras.passes_result
    settle(Outcome(first, 0.1, result="[5]"))
    assert waiting() == []
    settle(Outcome(second, 0.1))
    assert waiting() == [("echo", [[5], "after"])]


@both
def test_a_discarded_call_discards_what_follows(site: Site) -> None:
    only_waiting.delay("x")
    only_waiting.s("x").then(close).delay()
    assert waiting() == [("only_waiting", ["x"])] and not Row.objects.exists()
    with snappea.batch(on_success=noted.s("done")):
        work.s(1).then(only_waiting.s("x")).then(close).delay()
    Task.objects.filter(task_name=only_waiting.name).update(priority=-1)
    settle(Outcome(claim(), 0.1))
    assert waiting() == [("only_waiting", ["x"]), ("noted", ["done"])]
    assert all(row.finished_at for row in Row.objects.all())


@both
def test_times_of_all_calls_count_from_the_call_before(site: Site) -> None:
    work.s(1).then(work.s(2).set(countdown=60)).then(work.s(3).set(countdown=60)).delay()
    for _ in range(2):
        Row.objects.update(created_at=timezone.now() - timedelta(hours=1))
        settle(Outcome(claim(), 0.1))
        Task.objects.filter(status="scheduled").update(status="ready")
        due = Task.objects.get().run_after
        assert due and timedelta(minutes=59) < due - timezone.now() < timedelta(minutes=62)


def test_errors(site: Site) -> None:
    for wrong, match in [
        (print, "cannot follow a call"),
        (work.s(1).set(eta=timezone.now()), "give countdown"),
        (work.s(1).set(batch=snappea.Batch(1)), "joins the batch around"),
        (work.s(), "missing a required argument"),
    ]:
        with pytest.raises(TypeError, match=match):
            work.s(1).then(wrong).delay()
    with pytest.raises(TypeError, match="unique by its arguments"):
        work.s(1).then(only_waiting.s(), result=True)
    with pytest.raises(TypeError, match="does not take `batch`"):
        chain("a", "b").apply_async(batch=snappea.Batch(1))
    with pytest.raises(TypeError, match="too many"):
        work.s(1).then(close.s(), result=True).delay()
    assert not Task.objects.exists() and not Row.objects.exists()


def test_eager_mode(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {**settings.SNAPPEA, "TASK_ALWAYS_EAGER": True}
    assert chain("a", "b", "c").then(echo, result=True).delay().get() == "a"
    assert site.ledger.count("echo", "(('abc',),{})") == 1
    with pytest.raises(ValueError):
        fail.s(1).then(close).delay()
    assert not site.ledger.count("closed")


@pytest.mark.parametrize("note", list(Note))
def test_recovery(site: Site, note: Note) -> None:
    """A call that has succeeded, but lost its result, counts as interrupted."""
    work.s(1).then(noted.s(2)).delay()
    claimed = claim()
    with transact(connect()) as db:
        recovery.recover(db, now(), {Entry.of(*claimed.fence): note})
    assert waiting() == {
        Note.CLAIMED: [("work", [1])],
        Note.TO_RETRY: [("work", [1])],
        Note.SUCCEEDED: [("noted", [2])],
    }.get(note, [])
    grow.s("a", "b").then(grow.s("c"), result=True).delay()
    Task.objects.exclude(task_name=grow.name).delete()
    claimed = claim()
    assert execute.note_of(Outcome(claimed, 0.1, result='"ab"')) is Note.BEGUN
    assert execute.note_of(Outcome(claimed, 0.1, "error")) is Note.FAILED


# with real Foremen


def unfinished() -> bool:
    return Task.objects.filter(status__in=("ready", "running")).exists()


def has_run(enough: int, site: Site) -> bool:
    return len(site.ledger.lines()) >= enough or not unfinished()


@both
def test_chains_run(site: Site) -> None:
    site.foreman()
    for number in range(50):
        chain(f"{number}-", "b", "c").then(echo.s(), result=True).delay()
    wait_until(lambda: not Task.objects.exists())
    assert site.ledger.keys("echo") == {f"(('{number}-bc',),{{}})": 1 for number in range(50)}


def test_results_come_from_the_event_loop_and_from_processes(site: Site) -> None:
    site.foreman()
    chain = grow_on_loop.s("", "a").then(grow_isolated.s("b"), result=True)
    chain.then(grow_on_loop.s("c"), result=True).then(echo.s(), result=True).delay()
    wait_until(lambda: not Task.objects.exists())
    assert site.ledger.keys("grown") == {"a": 1, "ab": 1, "abc": 1}
    assert site.ledger.count("echo", "(('abc',),{})") == 1


@pytest.mark.long
@both
@pytest.mark.parametrize("first", [grow, grow_late], ids=["at most once", "at least once"])
def test_each_call_is_enqueued_once_whenever_the_foreman_is_killed(site: Site, first: Any) -> None:
    site.settings["FOREMAN_TIMEOUT"] = 2
    chance, made, kills = random.Random(7), 60, 0
    for number in range(made):
        chain(f"{number}:", "b", "c", first=first).delay()
    while unfinished():
        foreman = site.foreman()
        wait_until(partial(has_run, len(site.ledger.lines()) + chance.randrange(10, 70), site))
        foreman.kill()
        kills += 1
    assert kills > 2
    grown = site.ledger.keys("grown")
    interrupted = Task.objects.filter(status="interrupted")
    if first is grow:
        assert set(grown.values()) == {1}
        assert sum(text.endswith("bc") for text in grown) + interrupted.count() >= made
    operations.requeue(interrupted)
    site.foreman()
    wait_until(lambda: not Task.objects.exists())
    grown = site.ledger.keys("grown")
    assert {*grown} == {f"{number}:{more}" for number in range(made) for more in ("", "b", "bc")}
    assert all(row.finished_at and row.success_id and row.total == 1 for row in Row.objects.all())
    assert Row.objects.count() == 2 * made
