"""Operations of users: many rows in short batches, without conflicts with the Foreman; pauses."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from snappea.models import Pause, Task
from snappea.queue import groups, operations, store
from snappea.queue.clock import now
from snappea.queue.database import RawConnection, connect, raw, transact
from snappea.queue.records import Call
from snappea.queue.states import Gate
from tests.playground.lifecycle import two_at_a_time
from tests.playground.tasks import nap, record, record_async
from tests.site import Site, wait_until

CALL = Call("some.task", "[]", "{}", "default", 0, False)


def started(site: Site) -> list[str]:
    return [line[1] for line in site.ledger.lines() if line[0] == "start"]


# many at once


@pytest.mark.parametrize("verb", ["requeue", "cancel", "delete", "terminate"])
def test_many_are_changed_in_batches_between_which_others_may_write(
    site: Site, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction has more rows than fit into its time."""
    status = {"cancel": "ready", "terminate": "running"}.get(verb, "failed")
    store.enqueue_many([CALL] * 2500)
    site.sql("UPDATE snappea_task SET status = ?", status)
    begun: list[float] = []

    @contextmanager
    def noted(connection: Any) -> Iterator[RawConnection]:
        with transact(connection) as db:
            begun.append(time.monotonic())
            yield db

    monkeypatch.setattr(operations, "transact", noted)
    monkeypatch.setattr(operations, "BATCH", 0.001)
    assert getattr(operations, verb)(Task.objects.all()) == 2500
    assert len(begun) > 3
    left = Task.objects.filter(is_revoked=verb == "terminate").count()
    assert left == (0 if verb in ("cancel", "delete") else 2500)


def test_others_write_while_many_are_requeued(site: Site) -> None:
    store.enqueue_many([CALL] * 20_000)
    site.sql("UPDATE snappea_task SET status = 'failed'")
    writes, is_over = 0, threading.Event()

    def write() -> None:
        nonlocal writes
        connection = sqlite3.connect(site.database, timeout=30, isolation_level=None)
        while not is_over.is_set():
            connection.execute("UPDATE snappea_task SET priority = 1 WHERE id = 1")
            writes += 1
            is_over.wait(0.0005)
        connection.close()

    other = threading.Thread(target=write)
    other.start()
    try:
        wait_until(lambda: writes)
        before = writes
        assert operations.requeue(Task.objects.filter(status="failed")) == 20_000
        assert writes > before
    finally:
        is_over.set()
        other.join()


def test_many_are_looked_up_in_pages_and_those_that_come_meanwhile_are_left(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "PAGE", 10)
    for rows in (0, 9, 10, 35):
        store.enqueue_many([CALL] * rows)
        batches = []
        for changed in operations.cancel_in_batches(Task.objects.all()):
            batches.append(changed)
            store.enqueue(CALL)
        assert sum(batches) == rows and len(batches) >= rows // 10
        assert Task.objects.count() == len(batches)
        site.sql("UPDATE snappea_task SET status = 'failed'")
        assert operations.requeue(Task.objects.all()) == operations.cancel(Task.objects.all())


def test_in_a_transaction_of_the_caller_all_is_one(site: Site) -> None:
    store.enqueue_many([CALL] * 300)
    with transaction.atomic(using="snappea"):
        assert operations.cancel(Task.objects.all()) == 300
        transaction.set_rollback(True, using="snappea")
    assert Task.objects.count() == 300


def test_a_requeue_with_a_delay_waits_for_it(site: Site) -> None:
    Task.objects.create(task_name=record.name, args=["x"], status="failed", finished_at="2026-01-01T00:00Z")
    assert operations.requeue(Task.objects.all(), countdown=3600) == 1
    task = Task.objects.get()
    assert (task.status, task.finished_at) == ("scheduled", None)
    assert task.run_after and 3500 < (task.run_after.timestamp() - time.time()) < 3700
    assert operations.requeue(Task.objects.all()) == 1
    task.refresh_from_db()
    assert task.status == "ready" and task.run_after is None


def test_what_ran_again_in_the_meantime_is_not_requeued(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    Task.objects.create(task_name="some.task", status="failed", claims=1)
    chosen = operations._chosen

    def slow(*args: Any) -> Any:
        found = list(chosen(*args))
        site.sql("UPDATE snappea_task SET claims = claims + 1")  # a user requeued it, and it failed again
        return found

    monkeypatch.setattr(operations, "_chosen", slow)
    assert operations.requeue(Task.objects.all()) == 0
    assert operations.delete(Task.objects.all()) == 0


# pauses


def test_nothing_is_claimed_from_a_paused_queue_until_it_is_resumed(site: Site, wakeups: str) -> None:
    site.foreman()
    assert operations.pause("default") and not operations.pause("default")
    record.delay("paused")
    record.apply_async(("other",), queue="other")
    wait_until(lambda: site.ledger.count("end", "other"))
    wait_until(lambda: site.counts() == {"ready": 1})
    assert started(site) == ["other"]
    assert operations.resume("default") and not operations.resume("default")
    wait_until(lambda: site.ledger.count("end", "paused"))


def test_a_pause_holds_for_what_is_enqueued_right_after_it(site: Site) -> None:
    """At once, not after the Foreman's next check; many times, since it is a race."""
    site.foreman()
    for turn in range(20):
        operations.pause("default")
        record.delay(turn)
        record.apply_async((f"other-{turn}",), queue="other")
        wait_until(partial(site.ledger.count, "end", f"other-{turn}"))
        assert site.ledger.count("start", turn) == 0
        operations.resume("default")
        wait_until(partial(site.ledger.count, "end", turn))


def test_a_pause_survives_the_foreman(site: Site) -> None:
    operations.pause("default")
    record.delay("x")
    foreman = site.foreman()
    record.apply_async(("other",), queue="other")
    wait_until(lambda: site.ledger.count("end", "other"))
    wait_until(lambda: site.counts() == {"ready": 1})
    foreman.kill()
    site.foreman()
    record.apply_async(("another",), queue="other")
    wait_until(lambda: site.ledger.count("end", "another"))
    wait_until(lambda: site.counts() == {"ready": 1})
    assert list(operations.paused()) == ["default"]
    operations.resume("default")
    wait_until(lambda: site.ledger.count("end", "x"))


def test_what_runs_goes_on(site: Site) -> None:
    site.foreman()
    nap.delay("x", 0.3)
    wait_until(lambda: site.ledger.count("start", "x"))
    operations.pause("default")
    wait_until(lambda: site.ledger.count("end", "x"))


def test_the_event_loop_heeds_a_pause_as_well(site: Site) -> None:
    site.foreman()
    operations.pause("default")
    record_async.delay("x")
    record.apply_async(("other",), queue="other")
    wait_until(lambda: site.ledger.count("end", "other"))
    wait_until(lambda: site.counts() == {"ready": 1})
    operations.resume("default")
    wait_until(lambda: site.ledger.count("end", "x"))


def test_a_paused_queue_costs_an_idle_foreman_nothing(site: Site) -> None:
    """It must not spin on tasks that it may not claim."""
    foreman = site.foreman()
    operations.pause("default")
    for key in range(50):
        record.delay(key)
    record.apply_async(("other",), queue="other")
    wait_until(lambda: site.ledger.count("end", "other"))

    def switches() -> int:
        with open(f"/proc/{foreman.pid}/task/{foreman.pid}/status", encoding="ascii") as status:
            return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

    before = switches()
    time.sleep(2)  # time for it to misbehave
    assert switches() - before < 40


def test_a_lane_does_not_wait_for_one_of_its_own_in_a_paused_queue(site: Site) -> None:
    """Even if that one was admitted before the pause."""
    for turn in ("a", "b", "c"):
        two_at_a_time.apply_async((turn, 0), queue="paused")
    db = raw(connect())
    groups.block_new(db)
    groups.admit(db, two_at_a_time.name, now(), {})
    assert Task.objects.filter(gate=0).count() == 2
    operations.pause("paused")
    two_at_a_time.delay("d", 0)
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "d"))
    wait_until(lambda: site.counts() == {"ready": 3})
    assert started(site) == ["d"]
    operations.resume("paused")
    site.wait_until_empty()
    assert sorted(started(site)) == ["a", "b", "c", "d"]


def test_a_claim_itself_refuses_a_paused_queue(site: Site) -> None:
    store.enqueue(CALL)
    Pause.objects.create(queue="default", since="2026-01-01T00:00Z")
    assert store.claim(raw(connect()), now(), 1, {"default": 1}) == []


def test_the_names_of_queues_are_bound(site: Site) -> None:
    name = "'; DROP TABLE snappea_task; --\"\0"
    assert operations.pause(name) and list(operations.paused()) == [name] and operations.resume(name)


# a crash or an error in the middle


@pytest.mark.parametrize("verb", ["cancel", "resume"])
def test_what_waits_for_its_group_is_checked_in_the_same_transaction(site: Site, verb: str) -> None:
    """Otherwise it might wait for ever: no second call of the verb finds anything to do."""
    for gate in (Gate.OPEN, Gate.BLOCKED):
        pk = Task.objects.create(task_name="some.task", lane="lane", lane_limit=1).pk
        Task.objects.filter(pk=pk).update(gate=gate)
    Pause.objects.create(queue="mail", since=timezone.now())
    about: Any = Task.objects.filter(gate=Gate.OPEN) if verb == "cancel" else "mail"
    act = partial(getattr(operations, verb), about)
    site.sql("CREATE TRIGGER refuse BEFORE UPDATE ON snappea_task BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises((IntegrityError, sqlite3.IntegrityError), match="no"):
        act()
    assert Task.objects.count() == 2 and Pause.objects.exists()
    site.sql("DROP TRIGGER refuse")
    assert act() == 1
    assert Task.objects.get(lane="lane", gate=Gate.NEW)
