"""The statements of a task's life, on both databases."""

import re
from collections import Counter
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connections, transaction

from snappea.errors import EnqueueError, SnappeaError
from snappea.models import Task
from snappea.queue import operations, recovery, refusals, store
from snappea.queue.clock import now
from snappea.queue.database import RawConnection, connect, raw, transact
from snappea.queue.logbook import Entry, Note
from snappea.queue.records import Call, Claim, Outcome, Progress
from snappea.queue.statements import INSERT
from tests.playground.tasks import nothing, record
from tests.site import Site

pytestmark = pytest.mark.on_both
MOMENT = "2026-01-01 12:00:00"
CALL = Call("some.task", "[]", "{}", "default", 0, False)


def claim_of(task_id: int, claims: int = 1) -> Claim:
    return Claim(0, task_id, claims, "some.task", "[]", "{}")


def claim(db: RawConnection, limit: int) -> list[Claim]:
    return store.claim(db, MOMENT, limit, {"default": limit})


def test_a_late_finish_is_refused_by_the_fence(site: Site) -> None:
    Task.objects.create(task_name="some.task", status="running", claims=2)
    db = raw(connect())
    before = Task.objects.values().get()
    assert store.settle(db, MOMENT, [Outcome(claim_of(1, claims=1), 0.1)]) == 1
    assert store.settle(db, MOMENT, [Outcome(claim_of(1, claims=1), 0.1, "error")]) == 1
    assert store.interrupt(db, MOMENT, (1, 1, None), "why") is None
    store.give_back(db, [claim_of(1, claims=1)])
    assert Task.objects.values().get() == before


def test_a_late_finish_does_not_touch_another_task_that_got_its_id(site: Site) -> None:
    store.enqueue(CALL)
    db = raw(connect())
    (old,) = store.claim(db, "2026-01-01 11:59:59.999999", 1, {"default": 1})
    Task.objects.all().delete()
    Task.objects.create(pk=old.id, task_name="some.task")
    (new,) = claim(db, 1)
    assert (new.id, new.claims) == (old.id, old.claims)
    before = Task.objects.values().get()
    outcomes = [Outcome(old, 0.1), Outcome(old, 0.1, "error"), Outcome(old, 0.1, result="1")]
    assert store.settle(db, MOMENT, [*outcomes, *[Outcome(old, 0.1)] * store.SEVERAL]) == 3 + store.SEVERAL
    assert store.interrupt(db, MOMENT, old.fence, "why") is None
    store.give_back(db, [old])
    store.note_progress(db, [Progress(1, 2, "", *old.fence)])
    assert Task.objects.values().get() == before
    assert store.settle(db, MOMENT, [Outcome(new, 0.1)]) == 0
    assert not Task.objects.exists()


def test_claims_are_in_order_of_priority_then_of_age(site: Site) -> None:
    for priority in (0, 5, 0, -3, 5):
        Task.objects.create(task_name="some.task", priority=priority)
    db = raw(connect())
    assert [claim.id for claim in claim(db, 3)] == [2, 5, 1]
    assert [claim.id for claim in claim(db, 3)] == [3, 4]
    assert claim(db, 3) == []
    assert set(Task.objects.values_list("attempts", "claims")) == {(1, 1)}


def test_giving_back_counts_no_attempt_but_keeps_the_claim(site: Site) -> None:
    store.enqueue(CALL)
    db = raw(connect())
    store.give_back(db, claim(db, 1))
    row = Task.objects.get()
    assert (row.status, row.attempts, row.claims, row.started_at) == ("ready", 0, 1, None)


def test_interruptions(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {"MAX_INTERRUPTIONS": 3}
    db = raw(connect())
    Task.objects.create(task_name="some.task", acks_late=True)
    for expected in ("ready", "ready", "interrupted"):
        (claimed,) = claim(db, 1)
        assert store.interrupt(db, MOMENT, claimed.fence, "why") == expected
    row = Task.objects.get()
    assert (row.attempts, row.claims, row.interruptions, row.error) == (3, 3, 3, "why")
    assert operations.requeue(Task.objects.all()) == 1
    row.refresh_from_db()
    assert (row.status, row.attempts, row.claims, row.interruptions) == ("ready", 0, 3, 0)


def test_promotion_takes_what_is_due_and_not_too_much_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "AT_ONCE", 2)
    for minute in (5, 3, 1, 59):
        Task.objects.create(task_name="x", status="scheduled", run_after=f"2026-01-01T12:{minute:02}Z")
    db = raw(connect())
    assert store.peek(db).due == "2026-01-01 12:01:00"
    assert store.promote(db, "2026-01-01 12:00:59.999999") == 0
    assert store.promote(db, "2026-01-01 12:05:00.000001") == 2
    assert list(Task.objects.filter(status="ready").values_list("id", flat=True)) == [2, 3]
    assert store.promote(db, "2026-01-01 12:05:00.000001") == 1
    assert store.peek(db).due == "2026-01-01 12:59:00"


@pytest.mark.on_sqlite
def test_recovery_by_the_notes(site: Site) -> None:
    """A claim that no cell names may have begun."""
    notes = {
        Entry.of(2, 1, MOMENT): Note.CLAIMED,
        Entry.of(3, 1, MOMENT): Note.BEGUN,
        Entry.of(4, 1, MOMENT): Note.SUCCEEDED,
        Entry.of(5, 1, MOMENT): Note.FAILED,
        Entry.of(6, 9, MOMENT): Note.CLAIMED,
        Entry.of(7, 1, MOMENT): Note.BEGUN,
        Entry.of(8, 1, "2026-01-01 12:00:00.000001"): Note.SUCCEEDED,
        Entry.of(9, 1, MOMENT): Note.REVOKED,
    }
    for number in range(1, 10):
        columns = {"claims": 1, "attempts": 1, "started_at": f"{MOMENT}Z", "acks_late": number == 7}
        Task.objects.create(task_name="x", status="running", **columns)
    recovered = recovery.recover(raw(connect()), MOMENT, notes)
    assert Counter(task.outcome for task in recovered) == {
        "never begun": 1,
        "interrupted": 4,
        "succeeded": 1,
        "failed": 1,
        "cancelled": 1,
        "interrupted, to run again": 1,
    }
    assert dict(Task.objects.values_list("id", "status")) == {
        1: "interrupted",
        2: "ready",
        3: "interrupted",
        5: "failed",
        6: "interrupted",
        7: "ready",
        8: "interrupted",
        9: "cancelled",
    }


@pytest.mark.on_sqlite
def test_recovery_without_notes_takes_everything_for_begun(site: Site) -> None:
    for acks_late in (False, True):
        Task.objects.create(task_name="x", status="running", claims=1, acks_late=acks_late)
    recovered = recovery.recover(raw(connect()), MOMENT, None)
    assert [task.outcome for task in recovered] == ["interrupted", "interrupted, to run again"]


# enqueue


def test_enqueue_writes_the_row(site: Site) -> None:
    assert store.enqueue(CALL) == (1, True)
    row = Task.objects.get()
    assert (row.task_name, row.args, row.kwargs, row.status, row.attempts) == (
        "some.task",
        "[]",
        "{}",
        "ready",
        0,
    )
    assert abs((row.enqueued_at - Task._meta.get_field("enqueued_at").get_default()).total_seconds()) < 60


def test_enqueue_many_returns_the_ids_in_order(site: Site) -> None:
    assert store.enqueue_many([]) == []
    store.enqueue(CALL)
    calls = [CALL._replace(args=f"[{number}]") for number in range(1000)]
    ids = [task_id for task_id, _is_new in store.enqueue_many(calls)]
    assert [Task.objects.get(id=ids[n]).args for n in (0, 1, 999)] == ["[0]", "[1]", "[999]"]
    assert len(ids) == 1000 and Task.objects.count() == 1001


@pytest.mark.on_sqlite
def test_enqueue_many_is_whole_or_not_at_all(site: Site) -> None:
    site.sql(
        "CREATE TRIGGER full BEFORE INSERT ON snappea_task WHEN NEW.args = '[7]' "
        "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    )
    with pytest.raises(Exception, match="full"):
        store.enqueue_many([CALL._replace(args=f"[{number}]") for number in range(10)])
    assert Task.objects.count() == 0
    assert not raw(connect()).in_transaction


def test_enqueue_belongs_to_the_transaction_of_the_queues_database(site: Site) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic(using="snappea"):
        store.enqueue(CALL)
        store.enqueue_many([CALL, CALL])
        assert Task.objects.count() == 3
        _ = 1 / 0
    assert Task.objects.count() == 0


def test_a_refusal_says_what_to_do(site: Site) -> None:
    call_command("migrate", "snappea", "zero", database="snappea", verbosity=0)
    with pytest.raises(EnqueueError) as refused:
        nothing.delay()
    assert re.fullmatch(
        r"tests\.playground\.tasks\.nothing was not enqueued: the queue's database [^\n]+ is not migrated: "
        r"[^\n]+snappea_task[^\n]* \(run: python manage\.py migrate --database=snappea\)\. "
        r"Nothing was written\.",
        str(refused.value),
    )
    assert isinstance(refused.value, SnappeaError) and isinstance(refused.value, OperationalError)


def test_a_connection_that_breaks_during_the_commit_leaves_it_open(site: Site) -> None:
    refusal = refusals.refusal(
        OperationalError("server closed the connection unexpectedly"), "shop.tasks.ship"
    )
    assert str(refusal).startswith("shop.tasks.ship was not enqueued: ")
    assert str(refusal).endswith("). It may be enqueued anyway.")


@pytest.mark.on_sqlite
def test_quotes_and_the_like_are_data(site: Site) -> None:
    nasty = "'; DROP TABLE snappea_task; --\"\x00"
    store.enqueue(CALL._replace(task_name=nasty, queue=nasty))
    assert Task.objects.values_list("task_name", "queue").get() == (nasty, nasty)


def test_transact_rolls_back_and_joins(site: Site) -> None:
    connection = connect()
    with pytest.raises(ZeroDivisionError), transact(connection) as db:
        db.execute("DELETE FROM snappea_task")
        _ = 1 / 0
    assert not raw(connection).in_transaction
    with transaction.atomic(using="snappea"), transact(connection) as db:
        db.execute(INSERT, (*CALL[:-1], now(connection)))
    assert Task.objects.count() == 1


def test_cancel_does_not_need_a_fast_delete(site: Site) -> None:
    """With receivers, Django first selects and then deletes; nothing may be claimed in between."""
    store.enqueue_many([CALL] * 3)
    with connections["snappea"].execute_wrapper(lambda execute, *rest: execute(*rest)):
        assert operations.cancel(Task.objects.all()) == 3
    record.delay("x")
    assert Task.objects.count() == 1
