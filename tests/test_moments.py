"""When each promise holds: after a call has returned, and inside the claiming transaction."""

import signal
import sqlite3
import time
from functools import partial

import pytest
from django.utils import timezone

from snappea.errors import PauseUnconfirmed
from snappea.foreman.admission import Admission
from snappea.foreman.in_flight import InFlight
from snappea.foreman.round import STALE_AFTER, Prefetch
from snappea.models import Task
from snappea.queue import operations, store
from snappea.queue.clock import now
from snappea.queue.database import connect, raw
from tests.playground import coroutines
from tests.playground.gated import alone
from tests.playground.isolated import who
from tests.playground.lifecycle import loop
from tests.playground.tasks import nap, nothing, record, wait_for
from tests.site import Process, Site, wait_until

pytestmark = pytest.mark.long


def begun_after(site: Site, moment: float, prefix: str) -> list[str]:
    """Return the tasks of a kind that began after a moment."""
    lines = [line.split() for line in site.ledger.text().splitlines()]
    return [
        key
        for at, word, key, *_ in lines
        if word == "start" and key.startswith(prefix) and float(at) > moment
    ]


def claimed_first(*queues: str) -> str:
    """Return the name of the task that a Foreman would claim first."""
    keeper, db = Admission(queues), raw(connect())
    (claim,) = keeper.claim(db, now(), 1, store.peek(db), InFlight())
    return claim.args


# pauses


@pytest.mark.parametrize("other", ["b", ""])
def test_nothing_of_a_queue_begins_after_it_was_paused(site: Site, other: str) -> None:
    """Not even tasks claimed ahead: short ones come first, so that more are claimed than workers are free."""
    site.foreman(NUM_WORKERS=3)
    for turn in range(8):
        nothing.delay_many(() for _ in range(300))
        for number in range(40):
            nap.apply_async((f"a-{turn}-{number}", 0.03), queue="a")
            if other:
                nap.apply_async((f"b-{turn}-{number}", 0.001), queue=other)
        wait_until(partial(site.ledger.count, "start", f"a-{turn}-2"))
        assert operations.pause("a")
        paused_at = time.monotonic()
        record.apply_async((f"other-{turn}",), queue="c", priority=50)
        wait_until(partial(site.ledger.count, "end", f"other-{turn}"))
        wait_until(
            lambda: not site.sql("SELECT 1 FROM snappea_task WHERE status = 'running' AND queue = 'a'")
        )
        assert not begun_after(site, paused_at, "a")
        assert Task.objects.filter(queue="a", status="ready").count() > 0
        operations.resume("a")
        site.wait_until_empty()
    assert set(site.ledger.keys("start").values()) == {1} and not site.counts()


def test_a_pause_holds_for_processes_and_coroutines_that_are_about_to_begin(site: Site) -> None:
    site.foreman(NUM_WORKERS=2)
    for number in range(40):
        who.apply_async((f"a-process-{number}",), queue="a")
    wait_until(lambda: site.ledger.keys("who"))
    operations.pause("a")
    paused_at = time.monotonic()
    coroutines.block.delay(1.0)  # what the loop receives in this second has not begun
    wait_until(lambda: site.sql("SELECT 1 FROM snappea_task WHERE status = 'running' AND queue = 'default'"))
    for number in range(5):
        coroutines.wait_for.apply_async((f"b-{number}", str(site.directory)), queue="b")
    wait_until(lambda: site.sql("SELECT 1 FROM snappea_task WHERE status = 'running' AND queue = 'b'"))
    operations.pause("b")
    paused_too_at = time.monotonic()
    record.delay("last")
    wait_until(lambda: site.ledger.count("end", "last"))
    wait_until(lambda: "running" not in site.counts())
    assert not begun_after(site, paused_at, "a") and not begun_after(site, paused_too_at, "b-")
    operations.resume("a")
    operations.resume("b")
    site.wait_until_empty()
    assert {*site.ledger.keys("start").values(), *site.ledger.keys("who").values()} == {1}
    assert site.ledger.keys("who").total() == 40


def test_a_pause_is_confirmed_though_every_worker_is_busy_and_while_the_foreman_stops(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=1)
    wait_for.delay("busy", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "busy"))
    assert operations.pause("a")
    foreman.send(signal.SIGTERM)
    foreman.wait_for_output("Stopping")
    assert operations.pause("b") and not operations.pause("b")
    (site.directory / "go").touch()
    assert foreman.wait() == 0
    assert operations.pause("c"), "and without a Foreman there is nobody to wait for"


def _is_frozen_outside_of_a_transaction(site: Site, foreman: Process) -> bool:
    """Freeze a Foreman, but not while it holds the write lock."""
    foreman.send(signal.SIGSTOP)
    connection = sqlite3.connect(site.database, timeout=1, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        return True
    except sqlite3.OperationalError:
        foreman.send(signal.SIGCONT)
        return False
    finally:
        connection.close()


def test_a_foreman_that_does_not_answer_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    foreman = site.foreman()
    wait_until(partial(_is_frozen_outside_of_a_transaction, site, foreman))
    monkeypatch.setattr(operations, "CONFIRM_WITHIN", 0.2)
    with pytest.raises(PauseUnconfirmed, match="'a' is paused, but a Foreman has not confirmed it within"):
        operations.pause("a")
    assert list(operations.paused()) == ["a"]
    monkeypatch.undo()
    foreman.send(signal.SIGCONT)
    assert not operations.pause("a")


# priorities


def test_what_is_urgent_is_claimed_first_whatever_queue_it_is_in(site: Site) -> None:
    site.foreman(NUM_WORKERS=1)
    for turn in range(8):
        go = site.directory / f"go-{turn}"
        wait_for.apply_async((f"busy-{turn}", str(go)), queue="a")
        wait_until(partial(site.ledger.count, "start", f"busy-{turn}"))
        for number in range(3):
            record.apply_async((f"ordinary-{turn}-{number}",), queue="a")
        record.apply_async((f"urgent-{turn}",), queue=("b", "a", "0")[turn % 3], priority=100)
        go.touch()
        site.wait_until_empty()
        (first, *_others) = [key for key in begun_after(site, 0, "") if key.split("-")[1] == str(turn)][1:]
        assert first == f"urgent-{turn}"


@pytest.mark.on_both
def test_a_claim_takes_the_most_urgent_that_is_there_in_its_transaction(site: Site) -> None:
    foreman = Admission()
    db = raw(connect())
    record.apply_async(("ordinary",), queue="a")
    stale = store.peek(db)
    assert (stale.first, stale.last) == ("a", "a")
    record.apply_async(("urgent",), queue="b", priority=100)
    claims, *_ = foreman.admit_and_claim(db, now(), 1, 0, 1, store.peek(db), InFlight())
    assert [claim.args for claim in claims] == ['["urgent"]']
    record.apply_async(("more urgent, and due",), queue="c", priority=101 - 1, countdown=0.01)
    wait_until(lambda: Task.objects.filter(run_after__lt=timezone.now()).exists())
    claims, *_ = foreman.admit_and_claim(db, now(), 1, 0, 1, store.peek(db), InFlight())
    assert [claim.args for claim in claims] == ['["more urgent, and due"]']


@pytest.mark.on_both
def test_within_a_limit_what_is_urgent_passes_what_was_let_in_but_not_claimed(site: Site) -> None:
    alone.apply_async(("ordinary",))
    keeper, db = Admission(), raw(connect())
    assert keeper.claim(db, now(), 0, store.peek(db), InFlight()) == []
    assert list(Task.objects.values_list("gate", flat=True)) == [0]
    alone.apply_async(("urgent",), priority=100)
    (claim,) = keeper.claim(db, now(), 5, store.peek(db), InFlight())
    assert claim.args == '["urgent"]'
    assert dict(Task.objects.values_list("status", "gate")) == {"running": 0, "ready": 2}


def test_what_is_claimed_ahead_waits_for_its_worker_but_for_a_moment(site: Site) -> None:
    """Tasks that take longer than expected are given back, even if the workers make progress."""
    nothing.delay_many(() for _ in range(3000))
    for number in range(60):
        nap.delay(f"ordinary-{number}", 0.05)
    site.foreman(NUM_WORKERS=1)
    wait_until(lambda: begun_after(site, 0, "ordinary"))
    record.apply_async(("urgent",), priority=100)
    site.wait_until_empty()
    order = begun_after(site, 0, "")
    assert order.index("urgent") < 40


def test_a_claim_that_waits_too_long_is_stale_although_others_begin() -> None:
    prefetch = Prefetch()
    assert not prefetch.is_stale(handed=10, waiting=10)
    wait_until(lambda: prefetch.is_stale(handed=10, waiting=1))
    assert not prefetch.is_stale(handed=10, waiting=0)
    assert not prefetch.is_stale(handed=20, waiting=10)
    end = time.monotonic() + 3 * STALE_AFTER
    handed = 20
    while time.monotonic() < end:  # nothing waits for long
        handed += 5
        assert not prefetch.is_stale(handed, waiting=5) or time.monotonic() > end
        time.sleep(STALE_AFTER / 10)


# expiry, revoking


def test_what_has_expired_is_not_claimed(site: Site) -> None:
    record.apply_async(("x",), expires=0.05)
    keeper, db = Admission(), raw(connect())
    expires_at = site.sql("SELECT expires_at FROM snappea_task")[0][0]
    claims, expired, _peek = keeper.admit_and_claim(db, expires_at, 1, 0, 1, store.peek(db), InFlight())
    assert not claims and [task.task_name for task in expired] == [record.name] and not Task.objects.exists()


def test_what_was_cancelled_never_begins_and_what_is_terminated_ends_soon(site: Site) -> None:
    site.foreman(NUM_WORKERS=1)
    loop.delay("runs")
    wait_until(lambda: site.ledger.count("start", "runs"))
    for number in range(5):
        record.delay(f"waits-{number}")
    cancelled = operations.cancel(Task.objects.filter(status="ready"))
    assert operations.terminate(Task.objects.filter(status="running")) == 1
    wait_until(lambda: site.ledger.count("end", "runs"))
    site.wait_until_empty()
    assert len(begun_after(site, 0, "waits")) == 5 - cancelled and cancelled > 0
