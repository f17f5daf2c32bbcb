"""Which tasks may be claimed: served queues, limits, lanes and rates; and no lane ever gets stuck."""

import json
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from math import inf
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from snappea.errors import CannotStart, UnknownQueue
from snappea.foreman.admission import Admission
from snappea.foreman.in_flight import InFlight
from snappea.foreman.loop import Foreman
from snappea.models import Opening, Task, Total
from snappea.queue import groups, operations, store
from snappea.queue.clock import now
from snappea.queue.database import RawConnection, connect, raw, transact
from snappea.queue.records import Claim
from snappea.tasks.results import AsyncResult
from tests.clock import set_clock
from tests.playground.gated import (
    alone,
    by_account,
    by_size,
    in_bursts,
    mail,
    paced,
    paced_in_bursts,
    paced_pair,
    two_late,
    two_or_none,
)
from tests.playground.ledger import note
from tests.playground.lifecycle import loop, two_at_a_time
from tests.playground.tasks import nap, nothing, record, wait_for
from tests.site import Site, wait_until

pytestmark = pytest.mark.long

MAIL_OF_TWO = {"mail": {"max_concurrency": 2}, "reports": {}}
INTERVAL = 0.05  # of paced() and paced_pair()


def peak(lines: Iterable[list[str]], is_one: Callable[[str], bool] = lambda _key: True) -> int:
    """Return how many ran at once at most; after a line "killed", none of them runs any more."""
    running = highest = 0
    for word, *rest in lines:
        if word == "killed":
            running = 0
        elif is_one(rest[0]):
            running += {"start": 1, "end": -1, "left": -1}[word]
            highest = max(highest, running)
    return highest


def started(site: Site) -> list[str]:
    """Return the keys of started tasks, in order."""
    return [line[1] for line in site.ledger.lines() if line[0] == "start"]


def has_started(site: Site, count: int) -> bool:
    """Return whether so many have started."""
    return len(started(site)) >= count


def start_moments(site: Site) -> list[float]:
    """Return when they started."""
    return sorted(moment for key in set(started(site)) for moment in site.ledger.moments("start", key))


def claim(keeper: Admission, db: RawConnection, room: int) -> list[Claim]:
    """Claim as an idle Foreman does."""
    return keeper.claim(db, now(), room, store.peek(db), InFlight())


def assert_paced(moments: list[float], before: float) -> None:
    """Check that none started sooner than the rate allows; the first was enqueued after `before`.

    Nothing can be said of the distance between two: a slow machine delays any start, but hastens none.
    """
    assert all(moment - before >= number * INTERVAL for number, moment in enumerate(moments))


def wait_until_gone(site: Site) -> None:
    """Wait until no row is ready, scheduled or running."""
    wait_until(
        lambda: not {"ready", "running", "scheduled"} & set(site.counts()),
        f"{site.sql('SELECT status, gate, lane, count(*) FROM snappea_task GROUP BY 1, 2, 3')}",
    )


# queues


def test_only_the_queues_that_are_named_are_served(site: Site) -> None:
    for name in ("a", "b", "c", "default"):
        record.apply_async((name,), queue=name)
    foreman = site.foreman("--queues", "a,b")
    wait_until(lambda: site.ledger.count("end", "a") and site.ledger.count("end", "b"))
    record.apply_async(("c2",), queue="c")
    time.sleep(0.3)  # time for the others to start, if they could
    assert sorted(started(site)) == ["a", "b"] and site.counts() == {"ready": 3}
    assert foreman.stop() == 0
    site.foreman()
    site.wait_until_empty()
    assert sorted(started(site)) == ["a", "b", "c", "c2", "default"]


def test_spaces_between_queues_mean_nothing(site: Site) -> None:
    record.apply_async(("b",), queue="b")
    site.foreman("--queues", "a, b")
    wait_until(lambda: site.ledger.count("end", "b"))


def _mixed_order(site: Site, *flags: str) -> list[str]:
    for number in range(20):
        for name in ("b", "a"):
            priority = 10 if number == 19 else 0
            record.apply_async((f"{name}{number}",), queue=name, priority=priority)
    site.foreman("--queues", "a,b", *flags, NUM_WORKERS=1)
    site.wait_until_empty()
    return started(site)


def test_across_queues_the_most_urgent_runs_first_then_the_oldest(site: Site) -> None:
    expected = [f"{name}{number}" for number in (19, *range(19)) for name in ("b", "a")]
    assert _mixed_order(site) == expected


def test_strictly_one_queue_runs_before_the_next(site: Site) -> None:
    expected = [f"{name}{number}" for name in ("a", "b") for number in (19, *range(19))]
    assert _mixed_order(site, "--strict") == expected


def test_strictly_also_what_comes_later_runs_before_the_next_queue(site: Site) -> None:
    wait_for.apply_async(("b1", str(site.directory / "go")), queue="b")
    record.apply_async(("b2",), queue="b", priority=100)
    site.foreman("--queues", "a,b", "--strict", NUM_WORKERS=1)
    wait_until(lambda: site.ledger.count("end", "b2") and site.ledger.count("start", "b1"))
    record.apply_async(("b3",), queue="b", priority=100)
    record.apply_async(("a1",), queue="a")
    # what was claimed ahead of a worker that is busy is given back
    wait_until(lambda: site.counts() == {"running": 1, "ready": 2})
    (site.directory / "go").touch()
    site.wait_until_empty()
    assert started(site) == ["b2", "b1", "a1", "b3"]


@pytest.mark.parametrize(
    "enqueue",
    [
        lambda: mail.delay("x"),
        lambda: mail.delay_many([("x",)]),
        lambda: mail.delay_on_commit("x"),
        lambda: record.apply_async(("x",), queue="mail"),
        lambda: record.s("x").set(queue="mail").delay(),
        lambda: record.apply_async(("x",), queue=""),
        lambda: record.apply_async(("x",), queue="x" * 101),
    ],
)
def test_a_queue_that_is_not_declared_is_refused(
    site: Site, settings: Any, enqueue: Callable[[], object]
) -> None:
    settings.SNAPPEA = site.settings | {"QUEUES": {"reports": {}}}
    with pytest.raises(UnknownQueue):
        enqueue()
    assert Task.objects.count() == 0


def test_the_refusal_names_the_queues_there_are(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"QUEUES": {"reports": {}}}
    with pytest.raises(UnknownQueue, match=r"mail: there is no queue 'mail' .*, only default, reports\."):
        mail.delay("x")
    record.delay("default is always there")
    record.apply_async(("x",), queue="reports")
    assert set(Task.objects.values_list("queue", flat=True)) == {"default", "reports"}


def test_without_a_declaration_any_name_is_a_queue(site: Site) -> None:
    record.apply_async(("x",), queue="anything")
    assert Task.objects.get().queue == "anything"


def test_serving_a_queue_that_is_not_declared_is_refused(site: Site) -> None:
    foreman = site.manage("runsnappea", "--queues", "reports,nope", QUEUES=MAIL_OF_TWO)
    assert foreman.wait() == 1
    (line,) = foreman.output().splitlines()
    assert "Queue 'nope' is not in SNAPPEA[\"QUEUES\"]" in line and "mail, reports" in line


def test_queues_may_be_excluded(site: Site) -> None:
    for queue in ("default", "mail", "reports"):
        record.apply_async((queue,), queue=queue)
    site.foreman("--exclude-queues", "mail", "--burst", QUEUES=MAIL_OF_TWO)
    wait_until(lambda: site.counts() == {"ready": 1})
    assert Task.objects.get().queue == "mail"


def test_default_may_be_served_though_it_is_not_declared(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"QUEUES": MAIL_OF_TWO}
    Admission(["default", "mail"])
    with pytest.raises(CannotStart):
        Admission(["defualt"])


def test_no_more_of_a_queue_at_once_than_its_limit_and_the_others_fill_the_rest(site: Site) -> None:
    go = str(site.directory / "go")
    for number in range(8):
        wait_for.apply_async((f"mail-{number}", go), queue="mail", priority=5)
    for number in range(8):
        wait_for.apply_async((f"other-{number}", go), queue=("default", "reports")[number % 2])
    site.foreman(NUM_WORKERS=8, QUEUES=MAIL_OF_TWO)
    wait_until(lambda: len(started(site)) == 8)
    time.sleep(0.3)  # time for a third mail, if there could be one
    assert sorted(started(site)) == ["mail-0", "mail-1", *(f"other-{number}" for number in range(6))]
    (site.directory / "go").touch()
    site.wait_until_empty()
    assert peak(site.ledger.lines(), lambda key: key.startswith("mail")) == 2
    assert peak(site.ledger.lines()) == 8
    assert len(site.ledger.keys("end")) == 16


def test_the_limit_of_a_queue_holds_for_short_tasks_and_for_what_comes_later(site: Site) -> None:
    site.foreman(NUM_WORKERS=8, QUEUES=MAIL_OF_TWO)
    for number in range(100):
        nap.apply_async((f"mail-{number}", 0.002), queue="mail")
        nap.apply_async((f"other-{number}", 0.002))
    site.wait_until_empty()
    assert peak(site.ledger.lines(), lambda key: key.startswith("mail")) <= 2
    assert len(site.ledger.keys("end")) == 200


def test_a_strict_order_does_not_stall_behind_a_limit(site: Site) -> None:
    go = str(site.directory / "go")
    for number in range(4):
        wait_for.apply_async((f"mail-{number}", go), queue="mail")
        wait_for.apply_async((f"report-{number}", go), queue="reports")
    site.foreman("--queues", "mail,reports", "--strict", NUM_WORKERS=4, QUEUES=MAIL_OF_TWO)
    wait_until(lambda: sorted(started(site)) == ["mail-0", "mail-1", "report-0", "report-1"])
    (site.directory / "go").touch()
    site.wait_until_empty()


# lanes


def test_no_more_of_a_task_at_once_than_its_limit(site: Site) -> None:
    site.foreman(NUM_WORKERS=8)
    two_at_a_time.delay_many((f"two-{number}", 0.02) for number in range(20))
    nap.delay_many((f"nap-{number}", 0.02) for number in range(40))
    site.wait_until_empty()
    assert peak(site.ledger.lines(), lambda key: key.startswith("two")) == 2
    assert peak(site.ledger.lines()) > 2
    assert set(site.ledger.keys("end").values()) == {1} and len(site.ledger.keys("end")) == 60
    assert site.counts() == {}


def test_the_limit_holds_for_the_shortest_tasks(site: Site) -> None:
    """Claimed ahead or not: what is claimed counts."""
    site.foreman(NUM_WORKERS=8)
    two_at_a_time.delay_many((f"two-{number}", 0) for number in range(300))
    nothing.delay_many(() for _ in range(1000))
    site.wait_until_empty()
    assert peak(site.ledger.lines()) <= 2 and len(site.ledger.keys("end")) == 300


def test_each_key_has_its_own_lane(site: Site) -> None:
    for number in range(6):
        for account in ("a", "b", "c"):
            by_account.delay(account, f"{number}", seconds=0.05)
    site.foreman(NUM_WORKERS=8)
    site.wait_until_empty()
    lines = site.ledger.lines()
    for account in ("a", "b", "c"):
        assert peak(lines, account.__eq__) == 1
        assert [line[2] for line in lines if line[:2] == ["start", account]] == list("012345")
    assert 2 <= peak(lines) <= 3


def test_a_lane_is_first_in_first_out(site: Site) -> None:
    alone.delay_many((f"{number}",) for number in range(20))
    site.foreman(NUM_WORKERS=4)
    alone.delay_many((f"{number}",) for number in range(20, 40))
    site.wait_until_empty()
    assert started(site) == [f"{number}" for number in range(40)]


def test_in_a_lane_the_most_urgent_runs_first(site: Site) -> None:
    for priority in (0, -5, 7, 100, 7):
        alone.apply_async((f"{priority}",), priority=priority)
    site.foreman(NUM_WORKERS=4)
    site.wait_until_empty()
    assert started(site) == ["100", "7", "7", "0", "-5"]


@pytest.mark.parametrize("how", ["", "fail", "retry"])
def test_whatever_becomes_of_it_its_place_is_free_again(site: Site, how: str) -> None:
    site.foreman(NUM_WORKERS=4)
    for number in range(5):
        alone.delay(f"{number}", how)
        alone.delay(f"ok-{number}")
    wait_until_gone(site)
    lines = site.ledger.lines()
    assert len(site.ledger.keys("end")) == (5 if how == "fail" else 10)
    assert site.counts() == ({"failed": 5} if how == "fail" else {})
    assert peak([line for line in lines if line[1].startswith("ok")]) == 1
    assert set(site.ledger.keys("start").values()) == ({1, 2} if how == "retry" else {1})


def test_a_revoked_one_frees_its_place(site: Site) -> None:
    site.foreman()
    row = Task.objects.create(task_name=loop.name, args=["first"], lane="x", lane_limit=1, gate=1)
    Task.objects.create(task_name=record.name, args=["second"], lane="x", lane_limit=1, gate=1)
    wait_until(lambda: site.ledger.count("start", "first"))
    assert AsyncResult(row.pk).revoke(terminate=True)
    wait_until(lambda: site.ledger.count("end", "second"))
    wait_until(lambda: site.counts() == {"cancelled": 1})
    assert started(site) == ["first", "second"] and peak(site.ledger.lines()) == 1


def _admitted_and_held(site: Site, **options: Any) -> tuple[AsyncResult, AsyncResult]:
    """Return a task of a lane that was admitted but has no worker yet, and one that waits for its lane."""
    wait_for.apply_async(("busy", str(site.directory / "go")), priority=100)
    admitted = alone.apply_async(("admitted",), **options)
    held = alone.apply_async(("held",))
    site.foreman(NUM_WORKERS=1)
    wait_until(lambda: site.ledger.count("start", "busy"))
    gates = dict(Task.objects.filter(status="ready").values_list("id", "gate"))
    assert gates == {admitted.id: 0, held.id: 2}
    return admitted, held


def test_when_the_one_that_was_let_in_is_cancelled_the_next_is_let_in(site: Site) -> None:
    admitted, _held = _admitted_and_held(site)
    assert admitted.revoke()
    (site.directory / "go").touch()
    wait_until(lambda: site.ledger.count("end", "held"))
    site.wait_until_empty()
    assert started(site) == ["busy", "held"]


def test_when_one_that_is_held_is_cancelled_the_others_go_on(site: Site) -> None:
    _admitted, held = _admitted_and_held(site)
    alone.delay("last")
    assert held.revoke()
    (site.directory / "go").touch()
    site.wait_until_empty()
    assert started(site) == ["busy", "admitted", "last"]


def test_when_the_one_that_was_let_in_expires_the_next_is_let_in(site: Site) -> None:
    admitted, _held = _admitted_and_held(site, expires=3600)
    Task.objects.filter(pk=admitted.id).update(expires_at=timezone.now())
    (site.directory / "go").touch()
    site.wait_until_empty()
    assert started(site) == ["busy", "held"] and site.counts() == {}


def test_when_one_is_revoked_that_was_claimed_but_not_begun_the_next_is_let_in(site: Site) -> None:
    """It is cancelled when it is given back, so no worker reports its end."""
    first, second = alone.delay("first"), alone.delay("second")
    foreman = Foreman()
    foreman._open()
    db, keeper, in_flight = raw(foreman.connection), foreman.admission, foreman.in_flight
    in_flight.open(claim(keeper, db, 10))
    ((cell, claimed),) = in_flight.take_entered()
    assert claimed.id == first.id and first.revoke(terminate=True)
    in_flight.take_back([(cell, claimed)])
    foreman._turn(rang=True)
    assert first.status == "cancelled"
    assert [each.id for each in in_flight.claims.values()] == [second.id]


def test_many_ends_at_once_in_one_lane(site: Site) -> None:
    """All kinds of ends in a lane, over and over: finally, no task is left."""
    site.foreman(NUM_WORKERS=4)
    results = []
    options: list[dict[str, Any]] = [{}, {"expires": 0.05}, {"countdown": 0.1}, {"priority": 3}]
    for number in range(60):
        how = ("", "fail", "retry", "")[number % 4]
        results.append(two_late.apply_async((f"{number}", how, 0.005), **options[number // 4 % 4]))
        if number % 5 == 0:
            results[number // 2].revoke(terminate=number % 2 == 0)
    wait_until_gone(site)
    assert set(site.counts()) <= {"failed", "cancelled"}
    two_late.delay("after")
    wait_until(lambda: site.ledger.count("end", "after"))


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_lane_keeps_its_limit_across_foremen_and_never_sticks(site: Site, end: str) -> None:
    for number in range(30):
        two_late.delay(f"late-{number}", "", 0.03)
        two_at_a_time.delay(f"once-{number}", 0.03)
    for _ in range(4):
        enough = len(started(site)) + 5
        foreman = site.foreman(NUM_WORKERS=8, GRACEFUL_TIMEOUT=0.01, MAX_INTERRUPTIONS=10)
        wait_until(partial(has_started, site, enough))
        assert foreman.popen.poll() is None
        if end == "kill":
            foreman.kill()
        else:
            foreman.stop()
        note("killed")
    site.foreman(NUM_WORKERS=8, MAX_INTERRUPTIONS=10)  # one task may have been killed each time
    site.wait_until_empty()
    lines = site.ledger.lines()
    assert peak(lines, lambda key: key.startswith("late")) == 2
    assert peak(lines, lambda key: key.startswith("once")) == 2
    ended = site.ledger.path.read_text()
    assert all(f"end late-{number}\n" in ended for number in range(30))
    once = [key for key in started(site) if key.startswith("once")]
    assert len(once) == len(set(once))
    # killed between the note in the logbook and the first line of the body: told as interrupted
    kept = {json.loads(args)[0] for (args,) in site.sql("SELECT args FROM snappea_task")}
    unseen = {f"once-{number}" for number in range(30)} - set(once)
    assert unseen <= kept and len(unseen) <= 8  # of each kill, the two that ran
    interrupted = site.counts().get("interrupted", 0)
    assert site.counts() == ({"interrupted": interrupted} if interrupted else {})
    assert sum(f"end once-{number}\n" in ended for number in range(30)) + interrupted >= 30


def test_a_scheduled_one_takes_its_place_when_it_is_due(site: Site) -> None:
    site.foreman(NUM_WORKERS=4)
    for number in range(4):
        alone.apply_async((f"later-{number}", "", 0.05), countdown=3600)
    alone.delay("now")
    wait_until(lambda: site.ledger.count("end", "now"))
    before = time.monotonic()
    Task.objects.filter(status="scheduled").update(run_after=timezone.now() + timedelta(seconds=0.4))
    wait_until_gone(site)
    assert started(site) == ["now", *(f"later-{number}" for number in range(4))]
    assert start_moments(site)[1] - before >= 0.39
    assert peak(site.ledger.lines()) == 1


def test_what_is_requeued_goes_through_its_lane_again(site: Site) -> None:
    (site.directory / "broken").touch()
    site.foreman(NUM_WORKERS=4)
    alone.delay_many((f"{number}", "broken", 0.02) for number in range(5))
    wait_until(lambda: site.counts() == {"failed": 5})
    (site.directory / "broken").unlink()
    note("killed")  # those that failed noted no end
    before = len(site.ledger.lines())
    assert operations.requeue(Task.objects.all()) == 5
    site.wait_until_empty()
    assert site.counts() == {}
    assert peak(site.ledger.lines()[before:]) == 1 and len(site.ledger.keys("end")) == 5


def test_rows_that_were_created_with_a_lane(site: Site) -> None:
    for number in range(6):
        Task.objects.create(task_name=nap.name, args=[f"{number}", 0.02], lane="mine", lane_limit=1, gate=1)
    site.foreman(NUM_WORKERS=4)
    site.wait_until_empty()
    assert peak(site.ledger.lines()) == 1 and started(site) == [f"{number}" for number in range(6)]


# many that wait


def insert_waiting(site: Site, count: int, gate: int, lane: str = "full", status: str = "ready") -> None:
    """Insert so many tasks of a lane, ahead of all later ones."""
    site.sql(
        """WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
        INSERT INTO snappea_task (task_name, args, enqueued_at, lane, lane_limit, gate, status, run_after)
        SELECT ?, '[]', datetime('now'), ?, 1, ?, ?, CASE WHEN ? = 'scheduled' THEN '2999-01-01' END
        FROM number""",
        *(count, nothing.name, lane, gate, status, status),
    )


@pytest.mark.parametrize("gate", [1, 2])
def test_100_000_that_wait_for_their_lane_keep_nobody_else_from_running(site: Site, gate: int) -> None:
    arguments = ["busy", str(site.directory / "go")]
    Task.objects.create(
        task_name=wait_for.name, args=arguments, lane="full", lane_limit=1, gate=1, priority=100
    )
    foreman = site.foreman(GRACEFUL_TIMEOUT=0)
    wait_until(lambda: site.ledger.count("start", "busy"))
    insert_waiting(site, 100_000, gate)
    record.delay("plain")
    alone.delay("other-lane")
    wait_until(lambda: site.ledger.count("end", "plain"))
    wait_until(lambda: site.ledger.count("end", "other-lane"))
    assert site.counts()["ready"] == 100_000
    assert foreman.stop() == 0
    site.foreman()  # which sorts all of them again
    alone.delay("other-lane-again")
    wait_until(lambda: site.ledger.count("end", "other-lane-again"))


def steps_of_a_claim(room: int = 10) -> int:
    """Return how many tens of steps SQLite takes for a claim as the Foreman makes it."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    keeper = Admission()
    with transact(connect()) as db:
        claim(keeper, db, 0)  # admit all newcomers
    for number in range(room):
        (record if number % 2 else alone).delay(f"{number}")
    with transact(connect()) as db:
        below: sqlite3.Connection = connect().connection
        below.set_progress_handler(count, 10)
        claims = claim(keeper, db, room)
        below.set_progress_handler(None, 10)
    assert len(claims) == room // 2 + 1
    with transact(connect()) as db:
        db.execute("DELETE FROM snappea_task WHERE task_name <> ?", (nothing.name,))
    return steps


@pytest.mark.parametrize(
    ("gate", "status"), [(2, "ready"), (1, "scheduled"), (1, "interrupted"), (0, "failed")]
)
def test_a_claim_costs_no_more_for_100_000_that_may_not_run(site: Site, gate: int, status: str) -> None:
    empty = steps_of_a_claim()
    insert_waiting(site, 100_000, gate, status=status)
    assert steps_of_a_claim() < 2 * empty + 100


def test_100_000_newcomers_are_sorted_in_with_a_bounded_effort_for_each_round(site: Site) -> None:
    insert_waiting(site, 5_000, gate=1)
    db: RawConnection = raw(connect())
    keeper = Admission()
    held = []
    for _ in range(6):
        claim(keeper, db, 1)
        held.append(Task.objects.filter(gate=2).count())
    assert held[0] == groups.AT_ONCE - 1 and held[-1] == 5_000 - 1


def test_expired_results_go_in_portions_that_do_not_hold_up_a_claim(site: Site) -> None:
    """Each round deletes a few, and none that follows at once; expired tasks that wait go each round."""
    portion = store.EXPIRE_AT_ONCE
    insert_waiting(site, 3 * portion, 0, status="successful")
    Task.objects.update(expires_at=timezone.now() - timedelta(hours=1))
    db: RawConnection = raw(connect())
    keeper = Admission()
    admit = partial(keeper.admit_and_claim, room=1, loop_room=0, most=1, in_flight=InFlight())
    admit(db, now(), peek=store.peek(db))
    assert Task.objects.count() == 2 * portion and keeper.purge_at > time.monotonic() - 60
    keeper.purge_at = time.monotonic() + 60
    insert_waiting(site, 1, 0)
    assert len(admit(db, now(), peek=store.peek(db))[0]) == 1, "a task is claimed meanwhile"
    assert Task.objects.filter(status="successful").count() == 2 * portion
    for left in (portion, 0, 0):
        keeper.purge_at = min(keeper.purge_at, time.monotonic())
        admit(db, now(), peek=store.peek(db))
        assert Task.objects.filter(status="successful").count() == left
    assert keeper.purge_at == inf, "nothing wakes the Foreman any more"


# rates


def test_two_starts_are_never_too_close_together(site: Site) -> None:
    site.foreman(NUM_WORKERS=4)
    before = time.monotonic()
    paced.delay_many((f"{number}", 0.0, "fail") for number in range(15))
    site.wait_until_empty()
    assert len(started(site)) == 15
    assert_paced(start_moments(site), before)
    assert sorted(site.ledger.keys("start")) == sorted(f"{number}" for number in range(15))


def test_a_rate_saves_nothing_up(site: Site) -> None:
    """After an idle time, there is no burst."""
    site.foreman()
    paced.delay("first")
    wait_until(lambda: site.ledger.count("end", "first"))
    time.sleep(4 * INTERVAL)
    before = time.monotonic()
    paced.delay_many((f"{number}",) for number in range(5))
    site.wait_until_empty()
    assert_paced(start_moments(site)[1:], before)


@pytest.mark.parametrize("seconds", [0.004, 0.08])
def test_a_rate_is_kept_while_all_workers_are_busy_with_others(site: Site, seconds: float) -> None:
    """A task that was claimed ahead may start late, and so closer to the next one, but there is no burst."""
    site.foreman(NUM_WORKERS=2)
    before = time.monotonic()
    for number in range(12):
        nap.delay(f"nap-{number}", seconds)
        nothing.delay_many(() for _ in range(200))
        nap.delay(f"nip-{number}", seconds)
        paced.delay(f"paced-{number}")
    site.wait_until_empty()
    moments = sorted(site.ledger.moments("start", f"paced-{number}")[0] for number in range(12))
    assert_paced(moments, before)


def test_a_limit_and_a_rate_together(site: Site) -> None:
    site.foreman(NUM_WORKERS=8)
    before = time.monotonic()
    paced_pair.delay_many((f"{number}", 0.2) for number in range(8))
    site.wait_until_empty()
    assert peak(site.ledger.lines()) <= 2
    assert_paced(start_moments(site), before)
    assert len(site.ledger.keys("end")) == 8


def test_a_new_foreman_goes_on_with_a_lane_that_has_a_rate(site: Site) -> None:
    paced_pair.delay_many((f"{number}", 0.05) for number in range(12))
    foreman = site.foreman()
    wait_until(lambda: len(started(site)) >= 4)
    foreman.send(signal.SIGKILL)
    foreman.wait()
    site.foreman()
    site.wait_until_empty()
    assert len(set(started(site))) == 12 and len(started(site)) == 12
    assert set(site.counts()) <= {"interrupted"}


def test_a_burst_by_key_holds_across_foremen(site: Site) -> None:
    """Of an hourly rate, no more than the burst starts, whatever becomes of the Foreman and of the clock."""
    site.variables["SNAPPEA_TEST_APPS"] = "tests.clock.SettableClock"
    foreman = site.foreman()
    for number in range(5):
        in_bursts.delay("a", f"{number}")
        in_bursts.delay("b", f"{number}", "fail")
    six = sorted(f"{account}-{number}" for account in "ab" for number in range(3))
    wait_until(lambda: site.counts() == {"ready": 4, "failed": 3})
    for end in (signal.SIGKILL, signal.SIGTERM, None):
        in_bursts.delay("a", "more")
        record.delay(f"{end}")
        wait_until(partial(site.ledger.count, "end", f"{end}"))
        if end:
            foreman.send(end)
            foreman.wait()
            foreman = site.foreman()
    assert sorted(key for key in started(site) if "-" in key) == six
    wait_until(lambda: site.counts() == {"ready": 4 + 3, "failed": 3})
    set_clock(site.directory, 3600)
    record.delay("later")  # the Foreman sleeps by another clock
    foreman.stop()
    site.foreman()
    wait_until(lambda: site.counts() == {"ready": 3 + 2, "failed": 4})
    assert {"a-3", "b-3"} <= set(started(site))


def test_limits_that_depend_on_the_arguments(site: Site) -> None:
    site.foreman(NUM_WORKERS=20)
    for account in ("one", "two", "rated", "free"):
        for number in range(5):
            by_size.delay(account, f"{number}", "wait")
    wait_until(lambda: has_started(site, 1 + 2 + 3 + 5))
    record.delay("next")
    wait_until(lambda: site.ledger.count("end", "next"))
    accounts = Counter(key.partition("-")[0] for key in started(site) if "-" in key)
    assert accounts == {"one": 1, "two": 2, "rated": 3, "free": 5}
    with pytest.raises(ValueError, match="by_size: max_concurrency returned 0; it must be a whole number"):
        by_size.delay("wrong", "0")
    (site.directory / "go").touch()
    wait_until(lambda: site.counts() == {"ready": 2})


@pytest.mark.on_both
def test_calls_that_do_not_wait_for_their_limit(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=8)
    operations.pause("paused")
    two_or_none.apply_async(("b", "paused"), queue="paused")
    for number in range(5):
        two_or_none.delay("a", f"{number}", "wait, retry")
    two_or_none.delay("b", "0")
    wait_until(lambda: site.ledger.count("end", "b-0"))
    wait_until(lambda: site.counts() == {"running": 2, "ready": 1})
    foreman.wait_for_output(
        r"Discarded tests\.playground\.gated\.two_or_none #\d+, because its limit is reached"
    )
    (site.directory / "go").touch()
    wait_until(lambda: site.ledger.keys("end").total() == 3)  # a retry is not discarded
    operations.resume("paused")
    wait_until(lambda: site.ledger.count("end", "b-paused"))
    assert foreman.stop() == 0
    assert site.counts() == {}
    assert Total.objects.get(task_name=two_or_none.name).expired == 3


def test_calls_that_were_interrupted_are_not_discarded(site: Site) -> None:
    foreman = site.foreman()
    two_or_none.delay_many(("a", f"{number}", "wait") for number in range(2))
    wait_until(lambda: has_started(site, 2))
    foreman.kill()
    two_or_none.delay("a", "late")
    foreman = site.foreman()
    foreman.wait_for_output("Discarded")
    wait_until(lambda: has_started(site, 4))
    (site.directory / "go").touch()
    wait_until(lambda: site.counts() == {})
    assert sorted(site.ledger.keys("end")) == ["a-0", "a-1"]


@pytest.mark.on_postgres
def test_three_foremen_discard_what_none_of_them_may_start(site: Site) -> None:
    foremen = [site.foreman(NUM_WORKERS=4) for _ in range(3)]
    for number in range(100):
        two_or_none.delay("a", f"{number}")
    wait_until(lambda: site.counts() == {})
    assert [foreman.stop() for foreman in foremen] == [0, 0, 0]
    assert peak(site.ledger.lines()) <= 2
    assert Total.objects.get(task_name=two_or_none.name).expired == 100 - site.ledger.keys("end").total()


def test_a_burst_refills_at_the_rate(site: Site) -> None:
    site.foreman(NUM_WORKERS=8)
    before = time.monotonic()
    paced_in_bursts.delay_many((f"{number}",) for number in range(14))
    site.wait_until_empty()
    assert len(started(site)) == 14
    assert_paced(start_moments(site)[3:], before)


def test_a_rate_goes_on_when_the_clock_is_set_back(site: Site) -> None:
    site.variables["SNAPPEA_TEST_APPS"] = "tests.clock.SettableClock"
    site.foreman()
    paced_in_bursts.delay_many((f"{number}",) for number in range(40))
    wait_until(lambda: has_started(site, 6))
    set_clock(site.directory, -86400)
    site.wait_until_empty()
    assert len(started(site)) == 40


def test_many_groups_with_a_rate_cost_others_nothing(site: Site) -> None:
    empty = steps_of_a_claim()
    insert_waiting(site, 100_000, 1)
    site.sql("UPDATE snappea_task SET lane = 'rated:' || id, lane_limit = NULL, lane_interval = 3600")
    site.sql("INSERT INTO snappea_opening SELECT lane, datetime('now', '+1 hour') FROM snappea_task")
    keeper = Admission()
    with transact(connect()) as db:
        while store.peek(db).has_newcomers:
            assert claim(keeper, db, 10) == []
        assert keeper.claim(db, now(), 10, store.peek(db), InFlight()) == []
    assert site.counts() == {"ready": 100_000}
    assert steps_of_a_claim() < 2 * empty + 100


def test_openings_of_full_buckets_are_deleted(site: Site) -> None:
    site.sql("INSERT INTO snappea_opening VALUES ('old', datetime('now', '-2 hours')), ('new', '2999-01-01')")
    site.foreman()
    wait_until(lambda: list(Opening.objects.values_list("lane", flat=True)) == ["new"])


# side by side


def test_workers_that_need_the_same_module_at_the_same_time_wait_for_its_import(site: Site) -> None:
    for key in range(8):
        Task.objects.create(task_name="tests.playground.slow.record_slowly_imported", args=[f"{key}"])
    site.foreman(NUM_WORKERS=8)
    site.wait_until_empty()
    assert site.counts() == {} and len(site.ledger.keys("end")) == 8


# at once


def test_where_tasks_run_at_once_there_are_no_limits(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"TASK_ALWAYS_EAGER": True}
    with transaction.atomic():
        for number in range(5):
            paced.delay(f"{number}")
            alone.delay(f"{number}")
            by_account.delay("a", f"{number}")
    assert len(site.ledger.keys("end")) == 6 and Task.objects.count() == 0


def test_a_queue_without_a_name_is_one(site: Site) -> None:
    """delay() gives none to a task, but a row that is made by hand may have one."""
    site.foreman()
    Task.objects.create(task_name=record.name, args=["x"], queue="")
    wait_until(lambda: site.ledger.count("end", "x"))
    site.wait_until_empty()
