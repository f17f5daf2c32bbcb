"""snappea.batch(): members, callbacks, and every way in which a member ends, on both databases."""

import json
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Thread
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

import snappea
from snappea.models import Batch as Row
from snappea.models import Task
from snappea.queue import batches, operations, recovery, store
from snappea.queue import statements as sql
from snappea.queue.clock import later, now
from snappea.queue.database import connect, raw, transact
from snappea.queue.logbook import Entry, Note
from snappea.queue.records import Claim, Outcome, Unusable
from snappea.testing import drain
from tests.playground.batched import add_two, close, noted, work
from tests.playground.gated import only_waiting, two_or_none
from tests.playground.tasks import echo, fail, record
from tests.site import Site, wait_until

both = pytest.mark.on_both


def new(members: int, **more: Any) -> snappea.Batch:
    callbacks: Any = {f"on_{name}": noted.s(name) for name in ("success", "failure", "complete")}
    with snappea.batch(**callbacks, **more) as batch:
        work.delay_many((number,) for number in range(members))
    return batch


def called() -> list[str]:
    rows = Task.objects.filter(task_name=noted.name).order_by("pk")
    return [args[2:-2] for args in rows.values_list("args", flat=True)]


def claims() -> list[Claim]:
    """Claim the members that are ready, and leave the callbacks alone."""
    members = Task.objects.filter(task_name=work.name, status="ready").values_list("pk", flat=True)
    with transact(connect()) as db:
        return store._claimed(db, sql.CLAIM_THESE, now(), json.dumps(list(members)))


def settle(*outcomes: Outcome) -> None:
    with transact(connect()) as db:
        store.settle(db, now(), outcomes)


@both
def test_callbacks_come_with_the_last_member(site: Site) -> None:
    batch = new(2, description="two of them")
    first, second = claims()
    settle(Outcome(first, 0.1))
    assert called() == []
    assert batch.progress() == (2, 1, 0, 0, 1, 0)
    settle(Outcome(second, 0.1))
    assert called() == ["success", "complete"]
    assert batch.progress() == (2, 2, 0, 0, 0, 0) and batch.progress().is_finished
    row = Row.objects.get()
    assert row.finished_at and row.success_id and row.complete_id and not row.failure_id
    assert str(row) == "two of them"


def expire(db: Any, claim: Any) -> None:
    store.expire_claimed(db, [claim])


def give_back_revoked(db: Any, claim: Any) -> None:
    db.execute("UPDATE snappea_task SET is_revoked = ? WHERE id = ?", (True, claim.id))
    store.give_back(db, [claim])


def interrupt(db: Any, claim: Any) -> None:
    store.interrupt(db, now(), claim.fence, "why")


def failing(db: Any, claim: Any) -> None:
    store.settle(db, now(), [Outcome(claim, 0.1, "error", "reason")])


def revoked(db: Any, claim: Any) -> None:
    store.settle(db, now(), [Outcome(claim, 0.1, "error", "reason", is_revoked=True)])


@both
@pytest.mark.parametrize("end", [expire, give_back_revoked, interrupt, failing, revoked])
def test_a_member_that_ends_without_success_counts(site: Site, end: Callable[..., None]) -> None:
    new(2)
    first, second = claims()
    settle(Outcome(first, 0.1))
    with transact(connect()) as db:
        end(db, second)
    assert called() == ["failure", "complete"]


@both
def test_on_failure_comes_with_the_first_failure_and_once(site: Site) -> None:
    new(3)
    for number, claim in enumerate(claims()):
        settle(Outcome(claim, 0.1, "error", "reason"))
        assert called() == ["failure"] + ["complete"] * (number == 2)


@both
def test_a_retry_does_not_end_a_member(site: Site) -> None:
    batch = new(1)
    settle(Outcome(claims()[0], 0.1, "error", "reason", retry_after=60.0))
    assert called() == []
    assert batch.progress() == (1, 0, 0, 1, 0, 0)


@both
def test_members_that_wait_can_expire_and_be_cancelled(site: Site) -> None:
    with snappea.batch(on_complete=noted.s("complete")) as batch:
        result = work.apply_async((1,), expires=-1)
        work.delay(2)
    assert Task.objects.filter(pk=result.id).exists()
    with transact(connect()) as db:
        store.expire(db, now())
    assert called() == [] and batch.progress() == (2, 0, 0, 1, 0, 1)
    operations.cancel(Task.objects.all())
    assert called() == ["complete"]


@both
def test_cancelling_the_rest(site: Site) -> None:
    batch = new(3)
    first, *_ = claims()
    Task.objects.exclude(pk=first.id).update(status="ready")
    assert batch.cancel(terminate=True) == 2
    assert Task.objects.get(pk=first.id).is_revoked
    settle(Outcome(first, 0.1))  # it succeeds all the same
    assert called() == ["failure", "complete"]


@both
def test_requeueing_reopens_it_and_no_callback_comes_twice(site: Site) -> None:
    batch = new(2)
    first, second = claims()
    settle(Outcome(first, 0.1), Outcome(second, 0.1, "error", "reason"))
    assert called() == ["failure", "complete"] and Row.objects.get().finished_at
    assert operations.requeue(Task.objects.filter(status="failed")) == 1
    assert Row.objects.get().finished_at is None and not batch.progress().is_finished
    settle(Outcome(claims()[0], 0.1))
    assert called() == ["failure", "complete", "success"] and Row.objects.get().finished_at


@both
def test_an_empty_batch_completes_at_once(site: Site) -> None:
    batch = new(0)
    assert called() == ["success", "complete"] and Row.objects.get(pk=batch.id).finished_at


@both
def test_an_exception_in_the_block_enqueues_nothing(site: Site) -> None:
    with pytest.raises(ZeroDivisionError), snappea.batch(on_complete=close):
        work.delay(1)
        raise ZeroDivisionError
    work.delay(2)
    assert Task.objects.get().batch_id is None and not Row.objects.exists()


def test_results_are_known_after_the_block(site: Site) -> None:
    with snappea.batch() as batch:
        result = work.delay(1)
        with pytest.raises(RuntimeError, match="at its end"):
            _ = result.id
        with pytest.raises(RuntimeError, match="id is unknown"):
            _ = batch.id
    assert result.id == Task.objects.get(batch_id=batch.id).pk and result.status == "ready"


def test_ways_to_enqueue_members(site: Site) -> None:
    with snappea.batch() as batch:
        work.delay(1)
        work.delay_many([(2,), (3,)])
        work.apply_async((4,), countdown=60)
        work.s(5).delay()
        work.delay_on_commit(6)
    assert Task.objects.filter(batch_id=batch.id).count() == 6
    assert batch.progress().total == 6


@both
def test_calls_that_name_their_batch(site: Site) -> None:
    with snappea.batch() as batch, snappea.batch() as inner:
        results = work.delay_many([(1,), (2,)], batch=batch)
        thread = Thread(target=partial(work.s(3).apply_async, batch=batch))
        thread.start()
        thread.join()
        work.delay(4)
    assert {result.id for result in results} < {
        *Task.objects.filter(batch_id=batch.id).values_list("pk", flat=True)
    }
    assert (batch.progress().total, inner.progress().total) == (4, 1)
    assert work.apply_async((5,), batch=snappea.Batch(batch.id)).status == "ready"
    assert work.delay_many([(6,)], batch=batch)[0].status == "ready"
    assert batch.progress().total == 6
    with pytest.raises(LookupError):
        work.apply_async((7,), batch=snappea.Batch(10**6))
    with pytest.raises(TypeError, match=r"as in batch=Batch\(7\)"):
        work.apply_async((7,), batch=1)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="id is unknown"):
        work.delay_many([(7,)], batch=snappea.batch())
    assert Task.objects.count() == 6


def test_delay_on_commit_lets_the_whole_batch_wait_for_the_commit(site: Site) -> None:
    with transaction.atomic():
        with snappea.batch(on_complete=close):
            work.delay(1)
            work.delay_on_commit(2)
        assert not Task.objects.exists()
    assert Task.objects.count() == 2
    with transaction.atomic():
        with snappea.batch(on_complete=close):
            work.delay_on_commit(2)
        transaction.set_rollback(True)
    assert Task.objects.count() == 2 and Row.objects.count() == 1


@both
def test_members_may_add_members(site: Site) -> None:
    with snappea.batch(on_success=close) as batch:
        add_two.delay()
    assert drain() == 4
    assert batch.progress() == (3, 3, 0, 0, 0, 0)
    assert not Task.objects.exists() and site.ledger.count("closed") == 1


@both
def test_members_can_be_added_to_a_finished_batch(site: Site) -> None:
    batch = new(0)
    with snappea.Batch(batch.id):
        work.delay(1)
    assert Row.objects.get().finished_at is None
    settle(Outcome(claims()[0], 0.1))
    assert called() == ["success", "complete"] and Row.objects.get().finished_at
    Row.objects.all().delete()
    with pytest.raises(LookupError, match="does not exist"), snappea.Batch(batch.id):
        work.delay(1)
    assert not Task.objects.filter(status="ready", task_name=work.name).exists()


@both
@pytest.mark.parametrize("seed", range(20))
def test_batches_nest(site: Site, seed: int) -> None:
    """The callbacks of an inner batch are members of the outer one."""
    chance = random.Random(seed)
    with snappea.batch(on_success=noted.s("outer success"), on_complete=noted.s("outer complete")) as outer:
        work.delay_many((number,) for number in range(chance.randrange(3)))
        with snappea.batch(on_success=work.s("inner success"), on_failure=work.s("inner failure")):
            work.delay_many((number,) for number in range(chance.randrange(3)))
    has_failed = False
    while waiting := claims():
        chance.shuffle(waiting)
        for claim in waiting:
            assert not {"outer success", "outer complete"} & set(called())
            fails = chance.random() < 0.2
            has_failed |= fails
            settle(Outcome(claim, 0.1, "error" * fails, "reason" * fails))
    progress = outer.progress()
    assert progress.is_finished and progress.total == progress.succeeded + progress.failed
    assert called().count("outer complete") == 1
    assert called().count("outer success") == (not has_failed)
    assert all(row.finished_at for row in Row.objects.all())


@both
def test_identical_calls_that_are_discarded_do_not_join(site: Site) -> None:
    only_waiting.delay("x")
    with snappea.batch(on_success=noted.s("success")) as batch:
        result = only_waiting.delay("x")
    assert result.id == Task.objects.get(task_name=only_waiting.name).pk
    assert batch.progress().total == 0 and called() == ["success"]


@both
def test_the_times_of_a_callback_count_from_the_end(site: Site) -> None:
    with snappea.batch(on_success=close.s().set(countdown=60, expires=120)):
        work.delay(1)
    Row.objects.update(created_at=timezone.now() - timedelta(hours=1))
    settle(Outcome(claims()[0], 0.1))
    called = Task.objects.get()
    assert called.run_after and called.run_after > timezone.now() + timedelta(minutes=59)
    assert called.expires_at and timedelta(0) < called.expires_at - called.run_after < timedelta(minutes=2)


@pytest.mark.parametrize("note", list(Note))
def test_recovery_counts(site: Site, note: Note) -> None:
    new(1)
    claim = claims()[0]
    with transact(connect()) as db:
        recovery.recover(db, now(), {Entry.of(*claim.fence): note})
    expected = {
        Note.CLAIMED: [],
        Note.TO_RETRY: [],
        Note.SUCCEEDED: ["success", "complete"],
        Note.FAILED: ["failure", "complete"],
        Note.REVOKED: ["failure", "complete"],
        Note.BEGUN: ["failure", "complete"],
    }
    assert called() == expected[note]


@both
def test_what_nothing_has_finished_is_found_later(site: Site) -> None:
    new(1)
    Task.objects.all().delete()  # by hand
    batches.forget(raw(connect()), now())
    assert called() == ["failure", "complete"]
    new(1)
    with transact(connect()) as db:
        row = Unusable(Task.objects.get(task_name=work.name).pk, {"priority": 0}, "Priority is 'high'.")
        store.set_aside(db, now(), row)
    batches.forget(raw(connect()), now())
    assert called() == ["failure", "complete"] * 2


@both
def test_old_batches_are_deleted_without_their_failed_members(site: Site) -> None:
    new(0)
    new(1)
    settle(Outcome(claims()[0], 0.1, "error", "reason"))
    batches.forget(raw(connect()), later(now(), batches.KEPT_FOR - 60))
    assert Row.objects.count() == 2
    batches.forget(raw(connect()), later(now(), batches.KEPT_FOR + 60))
    assert Row.objects.get().total == 1
    operations.delete(Task.objects.filter(task_name=work.name))
    batches.forget(raw(connect()), later(now(), batches.KEPT_FOR + 60))
    assert not Row.objects.exists()


def test_an_unreadable_callback_stops_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("{", "{}", '{"extras": 1}', "[]"):
        new(1)
        Row.objects.update(on_success=text)
        settle(Outcome(claims()[0], 0.1))
        assert called() == ["complete"] and "cannot be read" in caplog.text
        Task.objects.all().delete()
        caplog.clear()


def test_errors(site: Site) -> None:
    with pytest.raises(TypeError, match="cannot follow a batch"):
        snappea.batch(on_success=print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="countdown"):
        snappea.batch(on_success=close.s().set(eta=timezone.now()))
    with pytest.raises(TypeError):
        snappea.batch(on_success=close.s(1))
    with pytest.raises(TypeError, match="broadcast"), snappea.batch():
        work.broadcast(1)
    with pytest.raises(LookupError, match="Batch 7 does not exist"):
        snappea.Batch(7).progress()


@both
def test_a_member_that_succeeds_twice(site: Site) -> None:
    with snappea.batch(on_failure=noted.s("failure"), on_complete=noted.s("complete")):
        work.apply_async((1,), result_ttl=60)
    assert drain() == 2
    operations.requeue(Task.objects.all())
    assert drain() == 1
    assert site.ledger.keys("noted") == {"complete": 1}


def test_eager_mode_runs_members_and_then_callbacks(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {**settings.SNAPPEA, "TASK_ALWAYS_EAGER": True}
    with snappea.batch(on_success=echo.s("success"), on_complete=echo.s("complete")):
        result = record.delay(1)
    assert result.get() is None
    with pytest.raises(ValueError), snappea.batch(on_success=echo, on_failure=echo.s("failure")):
        fail.delay(2)
    assert list(site.ledger.keys("echo")) == [
        "(('success',),{})",
        "(('complete',),{})",
        "(('failure',),{})",
    ]


# with real Foremen


def has_at_most(few: int) -> bool:
    return Task.objects.filter(status="ready").count() <= few


@both
def test_callbacks_of_a_batch_run(site: Site) -> None:
    site.foreman()
    with snappea.batch(on_success=close, on_complete=echo.s("complete")) as batch:
        record.delay_many((number,) for number in range(200))
    wait_until(lambda: not Task.objects.exists())
    assert batch.progress().succeeded == 200
    assert site.ledger.count("closed") == 1


def test_each_callback_is_enqueued_once_whenever_the_foreman_is_killed(site: Site) -> None:
    chance = random.Random(7)
    made = []
    for number in range(15):
        with snappea.batch(on_complete=echo.s("complete"), on_failure=echo.s("failure")) as batch:
            record.delay_many((f"{number}-{member}",) for member in range(60))
        made.append(batch)
    kills = 0
    while left := Task.objects.filter(status="ready").count():
        foreman = site.foreman()
        few = max(0, left - chance.randrange(1, 100))
        wait_until(partial(has_at_most, few))
        foreman.kill()
        kills += 1
    assert kills > 5
    with transact(connect()) as db:
        recovery.recover(db, now(), {})
    for batch in made:
        row = Row.objects.get(pk=batch.id)
        progress = batch.progress()
        assert progress.is_finished and row.finished_at and row.complete_id, progress
        assert bool(row.failure_id) == bool(progress.failed or progress.gone)
        assert progress.total == 60 == progress.succeeded + progress.failed


@both
def test_a_member_that_its_limit_discards_is_gone(site: Site) -> None:
    with snappea.batch(on_success=echo.s("success"), on_complete=echo.s("complete")) as batch:
        two_or_none.delay_many(("a", f"{number}") for number in range(5))
    site.foreman()
    wait_until(lambda: not Task.objects.exists())
    progress = batch.progress()
    assert (progress.is_finished, progress.succeeded, progress.gone) == (True, 2, 3)
    assert [*site.ledger.keys("echo")] == ["(('complete',),{})"]


@pytest.mark.on_postgres
def test_three_foremen_settle_the_last_members(site: Site) -> None:
    for _ in range(3):
        site.foreman(NUM_WORKERS=4)
    made = []
    for number in range(40):
        with snappea.batch(on_success=echo.s("success", number)) as batch:
            record.delay_many((f"{number}-{member}",) for member in range(12))
        made.append(batch)
    wait_until(lambda: not Task.objects.exists())
    assert all(batch.progress().succeeded == 12 for batch in made)
    assert site.ledger.keys("echo").total() == 40
