"""PostgreSQL as the queue: several Foremen, which die, are cut off, and do not disturb each other."""

import functools
import itertools
import json
import random
import signal
import threading
import time
from collections import Counter
from typing import Any

import pytest
from django.db import connections, transaction

from snappea.errors import EnqueueError
from snappea.models import Presence, Status, Task
from snappea.monitoring import inspect
from snappea.postgres import foremen as sharing
from snappea.queue import operations, store
from snappea.queue.clock import now
from snappea.queue.database import connect, data_version, raw, transact
from snappea.queue.foremen import foremen_at_work
from snappea.queue.records import Call, Outcome
from snappea.queue.states import Gate
from tests.playground.gated import (
    alone,
    by_account,
    in_bursts,
    only_one,
    only_waiting,
    paced,
    paced_in_bursts,
)
from tests.playground.tasks import fail, nap, nap_late, nothing, record, record_async, wait_for
from tests.site import DEADLINE, PostgresSite, Process, wait_until
from tests.test_crash import ENQUEUE_FOR_EVER, rows_by_key

pytestmark = [pytest.mark.on_postgres, pytest.mark.long]
CALL = Call("some.task", "[]", "{}", "default", 0, False)


@pytest.fixture(autouse=True)
def soon_taken_for_dead(site: PostgresSite, settings: Any) -> None:
    """Shorten the timeout."""
    site.settings["FOREMAN_TIMEOUT"] = 4
    settings.SNAPPEA = dict(site.settings)


def foremen(site: PostgresSite, number: int = 3) -> list[Process]:
    """Start several Foremen, and wait until they work."""
    started = [site.manage("runsnappea") for _ in range(number)]
    for foreman in started:
        foreman.wait_for_output("tasks ready")
    return started


def spans(site: PostgresSite) -> list[tuple[float, float]]:
    """Return the start and end of each task, in the order of the starts."""
    moments: dict[tuple[str, ...], list[float]] = {}
    for line in site.ledger.text().splitlines():
        moment, _word, *key = line.split()
        moments.setdefault(tuple(key), []).append(float(moment))
    return sorted((began, ended) for began, ended in moments.values())


def wait_for_more(site: PostgresSite, number: int) -> None:
    """Wait until more than so many further tasks have ended."""
    seen = site.ledger.keys("end").total()
    wait_until(lambda: site.ledger.keys("end").total() > seen + number)


def wait_for_an_older_server(site: PostgresSite) -> None:
    """Wait until the start of the server, which counts as a heartbeat, is 2 s ago."""
    server_is_older = "SELECT clock_timestamp() - pg_postmaster_start_time() > interval '2 s'"
    wait_until(lambda: site.sql(server_is_older) == [(True,)])


def most_at_once(found: list[tuple[float, float]]) -> int:
    """Return the maximum number of overlapping spans."""
    changes = sorted([(begin, 1) for begin, _ in found] + [(end, -1) for _, end in found])
    return max(itertools.accumulate(change for _moment, change in changes))


def test_killed_again_and_again(site: PostgresSite) -> None:
    """Three Foremen, two enqueuers: each accepted task has run or is visible, and none ran twice."""
    site.settings |= {"NUM_WORKERS": 4, "MAX_INTERRUPTIONS": 1000}
    kills = 6
    chance = random.Random(kills)
    writers = [site.program(ENQUEUE_FOR_EVER, name) for name in ("a", "b")]
    pool = foremen(site)
    for kill in range(kills):
        wait_for_more(site, 20)
        time.sleep(chance.random() / 10)
        victim = pool.pop(chance.randrange(len(pool)))
        victim.send(signal.SIGKILL if kill % 3 else signal.SIGTERM)
        victim.wait()
        pool += foremen(site, 1)
    for writer in writers:
        writer.kill()
    site.wait_until_empty()
    wait_until(lambda: Presence.objects.count() == len(pool), "the killed ones to be taken for dead")
    assert [foreman.stop() for foreman in pool] == [0, 0, 0]
    accepted, started, ended = (site.ledger.keys(word) for word in ("ack", "start", "end"))
    rows = rows_by_key(site)
    assert {status for _name, status in rows.values()} <= {"failed", "interrupted"}
    assert not [key for key in accepted if not ended[key] and key not in rows], "lost"
    repeated = [key for key, count in started.items() if count > 1 and int(key.rpartition("-")[2]) % 3 != 2]
    assert not repeated, "ran twice without acks_late"
    failing = {key for key in accepted if int(key.rpartition("-")[2]) % 3 == 0}
    assert failing <= rows.keys(), "failures are kept"
    # a task that was claimed just before a kill may not have begun, but still counts as interrupted
    wrong = [key for key, (_name, status) in rows.items() if status == "interrupted" and not started[key]]
    assert len(wrong) <= kills * 4
    assert Presence.objects.count() == 0


def test_what_one_ran_that_was_cut_off_is_interrupted_and_what_it_reports_is_refused(
    site: PostgresSite,
) -> None:
    first = site.foreman(NUM_WORKERS=1)
    once = wait_for.delay("once", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "once"))
    second = site.foreman()
    first.send(signal.SIGSTOP)
    wait_until(lambda: once.status == Status.INTERRUPTED)
    second.wait_for_output(rf"Foreman {first.pid} on \S+ left 1 running: now interrupted")
    (site.directory / "go").touch()
    first.send(signal.SIGCONT)
    first.wait_for_output("considers this one dead")
    wait_until(lambda: site.ledger.count("end", "once"))
    first.wait_for_output("1 finished tasks had been changed by another process")
    assert once.status == Status.INTERRUPTED
    second.stop()
    record.delay("after")  # the Foreman continues with another id
    wait_until(lambda: site.ledger.count("end", "after"))


def test_what_may_be_repeated_runs_again_on_another(site: PostgresSite) -> None:
    first = site.foreman()
    nap_late.delay("twice", 600)
    wait_until(lambda: site.ledger.count("start", "twice"))
    first.kill()
    site.foreman()
    wait_until(lambda: site.ledger.count("start", "twice") == 2)
    assert Task.objects.get().interruptions == 1


def test_one_that_stops_in_good_order_leaves_at_once(site: PostgresSite) -> None:
    one, other = foremen(site, 2)
    assert {alive.pid for alive in foremen_at_work()} == {one.pid, other.pid}
    one.stop()
    assert {alive.pid for alive in foremen_at_work()} == {other.pid}
    other.kill()
    wait_until(lambda: foremen_at_work() == [])


def test_a_lane_is_one_for_all(site: PostgresSite) -> None:
    foremen(site)
    for number in range(60):
        alone.delay(f"{number}", "", 0.005)
    site.wait_until_empty()
    assert most_at_once(spans(site)) == 1 and len(spans(site)) == 60


def test_lanes_by_key_with_many_at_once(site: PostgresSite) -> None:
    foremen(site)
    for number in range(90):
        by_account.delay(f"account-{number % 3}", f"{number}", "", 0.01)
    site.wait_until_empty()
    assert len(spans(site)) == 90 and most_at_once(spans(site)) <= 3


def test_the_limit_of_a_queue_is_one_for_all(site: PostgresSite) -> None:
    site.settings["QUEUES"] = {"default": {"max_concurrency": 2}}
    foremen(site)
    for number in range(40):
        nap.delay(f"{number}", 0.02)
    site.wait_until_empty()
    assert len(spans(site)) == 40 and most_at_once(spans(site)) <= 2


def test_a_lane_goes_on_when_the_one_that_had_it_is_dead(site: PostgresSite) -> None:
    first = site.foreman()
    alone.delay("first", "", 600.0)
    wait_until(lambda: site.ledger.count("start", "first"))
    alone.delay("second")
    first.kill()
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "second"))


def test_a_rate_is_one_for_all(site: PostgresSite) -> None:
    pool = foremen(site)
    before = time.monotonic()
    for number in range(30):
        paced.delay(f"{number}")
    wait_until(lambda: site.ledger.keys("start").total() > 10)
    pool[0].kill()  # perhaps it had claimed the next one, which may be interrupted before it began
    site.wait_until_empty()
    starts = sorted(float(line.split()[0]) for line in site.ledger.text().splitlines() if " start " in line)
    assert 28 <= len(starts) <= 30
    assert all(start - before >= number * 0.05 - 0.01 for number, start in enumerate(starts))


def test_a_burst_by_key_is_one_for_all(site: PostgresSite) -> None:
    pool = foremen(site)
    for number in range(8):
        for account in "abc":
            in_bursts.delay(account, f"{number}")
    wait_until(lambda: site.ledger.keys("start").total() == 9)
    for foreman, end in zip(pool, (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL), strict=True):
        site.foreman()
        foreman.send(end)
        foreman.wait()
        in_bursts.delay("a", f"{foreman.pid}")
        record.delay(f"{foreman.pid}")
        wait_until(functools.partial(site.ledger.count, "end", f"{foreman.pid}"))
    assert len([key for key in site.ledger.keys("start") if "-" in key]) == 9


def test_a_group_goes_on_when_the_one_that_had_it_stops(site: PostgresSite) -> None:
    """That one has ended the last task of the group, or knows alone when the rate allows the next one."""
    first = site.foreman()
    alone.delay("first", "wait")
    paced_in_bursts.delay_many((f"{number}",) for number in range(60))
    wait_until(lambda: site.ledger.count("start", "first"))
    site.foreman()
    alone.delay("second")
    first.send(signal.SIGTERM)
    first.wait_for_output("Stopping")
    (site.directory / "go").touch()
    first.wait()
    wait_until(lambda: site.ledger.count("end", "second"))
    site.wait_until_empty()


def test_a_foreman_opens_a_group_for_the_queue_of_another(site: PostgresSite) -> None:
    """The other one might never look at the group again."""
    site.foreman("--queues", "mail")
    other = site.foreman("--queues", "default")
    wait_until(lambda: {*sharing.served()} == {"default", "mail"})
    other.send(signal.SIGSTOP)
    alone.delay("once")
    wait_until(lambda: not Task.objects.filter(gate=Gate.NEW))
    other.send(signal.SIGCONT)
    wait_until(lambda: site.ledger.count("end", "once"))


def test_unique_calls_from_many_sides(site: PostgresSite) -> None:
    foremen(site)
    code = "from tests.playground.gated import only_one\nfor _ in range(200): only_one.delay('same')"
    writers = [site.program(code) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    site.wait_until_empty()
    words = [line[0] for line in site.ledger.lines()]
    assert words == ["start", "end"] * (len(words) // 2) != [], "one at a time"


def test_conflicts_from_many_sides(site: PostgresSite) -> None:
    """One call within `unique_for`, although Foremen run it at once; the last arguments are never lost."""
    foremen(site, 2)
    code = """
from tests.playground.gated import hourly, latest
from tests.playground.ledger import note
for value in range(100):
    note("id", f"{hourly.delay(str(value % 20)).id}")
    latest.delay(sys.argv[1][0], value)
"""
    writers = [site.program(code, name) for name in ("a", "ab", "c")]
    assert [writer.wait() for writer in writers] == [0, 0, 0], writers[0].output()
    site.wait_until_empty()
    assert len(site.ledger.keys("id")) == 20
    assert dict.fromkeys(map(str, range(20)), 1) == site.ledger.keys("start")
    assert {"a-99", "c-99"} <= site.ledger.keys("end").keys()


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_an_identical_call_that_is_not_yet_committed_is_waited_for(site: PostgresSite, end: str) -> None:
    only_waiting.delay("same")
    ((key,),) = site.sql("DELETE FROM snappea_task RETURNING unique_key")
    found: list[int | None] = []

    def enqueue() -> None:
        found.append(only_waiting.delay("same").id)
        connections.close_all()

    with site.server.connect(site.name) as other:
        other.execute("BEGIN")
        other.execute(
            "INSERT INTO snappea_task (task_name, enqueued_at, unique_key) VALUES ('x', now(), %s)", (key,)
        )
        thread = threading.Thread(target=enqueue)
        thread.start()
        wait_until(lambda: site.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.execute(end)
        thread.join()
    ((task_id, name),) = site.sql("SELECT id, task_name FROM snappea_task")
    assert found == [task_id] and (name == "x") == (end == "COMMIT")


def test_no_tick_comes_twice(site: PostgresSite) -> None:
    site.settings["SCHEDULES"] = [{"task": fail.name, "args": ["tick"], "every": 0.2}]
    foremen(site)
    wait_until(lambda: site.counts().get("failed", 0) >= 12)
    ticks = Counter(site.sql("SELECT run_after FROM snappea_task"))
    assert set(ticks.values()) == {1}


def test_a_pause_holds_for_all(site: PostgresSite) -> None:
    foremen(site)
    operations.pause("default")
    for number in range(10):
        record.delay(number)
    time.sleep(0.5)  # longer than it takes them to run
    assert not site.ledger.lines()
    operations.resume("default")
    site.wait_until_empty()
    assert site.ledger.keys("end").total() == 10


def test_work_is_shared(site: PostgresSite) -> None:
    site.settings["NUM_WORKERS"] = 2
    pool = foremen(site)
    for number in range(60):
        nap.delay(number, 0.02)
    site.wait_until_empty()
    assert sorted(site.ledger.keys("start").values()) == [1] * 60
    assert all("Finished" in foreman.output() for foreman in pool)


# broadcast


def test_a_broadcast_runs_once_on_each(site: PostgresSite) -> None:
    pool = foremen(site)
    results = record.broadcast("all") + record_async.broadcast("async")
    assert len(results) == 6 and {result.status for result in results} <= {"ready", "running", None}
    wait_until(lambda: site.ledger.count("end", "all") == 3 == site.ledger.count("end", "async"))
    for foreman in pool:
        foreman.wait_for_output(r"Finished tests.playground.tasks.record #")
        assert foreman.output().count("Finished tests.playground.tasks.record #") == 1
    site.wait_until_empty()


def test_a_broadcast_to_one_that_is_gone_is_dropped(site: PostgresSite) -> None:
    one, other = foremen(site, 2)
    one.send(signal.SIGSTOP)
    record.broadcast("both")
    wait_until(lambda: site.ledger.count("end", "both"))
    assert inspect.counts()["ready"] == 1
    wait_until(lambda: site.counts() == {})
    assert site.ledger.count("end", "both") == 1
    other.stop()
    assert record.broadcast("nobody") == [] == list(Task.objects.all())


def test_a_broadcast_that_fails_is_tried_again_there(site: PostgresSite) -> None:
    number = sharing.register(raw(connect()), 1)
    sharing.be_known(raw(connect()), number)
    sharing.enqueue_for([number], CALL)
    with transact(connect()) as db:
        assert store.claim(db, now(), 10, {"default": 10}) == []
        (claim,) = store.claim_addressed(db, now(), 10)
        store.settle(db, now(), [Outcome(claim, 0.1, "error", "reason", retry_after=0.0)])
        store.promote(db, now())
        assert store.claim(db, now(), 10, {"default": 10}) == []
        (claim,) = store.claim_addressed(db, now(), 10)
        store.settle(db, now(), [Outcome(claim, 0.1, "error", "reason")])
    operations.requeue(Task.objects.all())  # by a user: it may run anywhere
    with transact(connect()) as db:
        assert len(store.claim(db, now(), 10, {"default": 10})) == 1


@pytest.mark.parametrize("task", [alone, only_one, paced], ids=lambda task: str(task))
def test_what_has_limits_cannot_be_broadcast(site: PostgresSite, task: Any) -> None:
    with pytest.raises(TypeError, match="cannot be broadcast"):
        task.broadcast("key")


# transactions


def test_in_a_transaction_it_is_enqueued_if_that_commits(site: PostgresSite) -> None:
    site.foreman()
    ear = site.server.connect(site.name)
    ear.execute("LISTEN snappea")
    with transaction.atomic(using="snappea"):
        kept = record.delay("kept")
        with pytest.raises(KeyError), transaction.atomic(using="snappea"):
            record.delay("gone")
            raise KeyError
        assert kept.status == Status.READY
        time.sleep(0.2)
        assert not site.ledger.lines() and not list(ear.notifies(timeout=0))
    assert len(list(ear.notifies(timeout=DEADLINE, stop_after=1))) == 1, "it is rung for at the commit"
    ear.close()
    wait_until(lambda: site.ledger.count("end", "kept"))
    site.wait_until_empty()
    assert not site.ledger.count("start", "gone") and site.counts() == {}


def test_enqueue_many_keeps_the_order(site: PostgresSite) -> None:
    results = record.delay_many((number,) for number in range(50))
    ids = [result.id for result in results]
    assert [json.loads(args) for (args,) in site.sql("SELECT args FROM snappea_task ORDER BY id")] == [
        [number] for number in range(50)
    ]
    assert ids == sorted(Task.objects.values_list("pk", flat=True))


# the server is away


def test_the_server_is_away_for_a_while(site: PostgresSite) -> None:
    foreman = site.foreman()
    running = wait_for.delay("running", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "running"))
    site.server.stop(signal.SIGQUIT)
    try:
        connections["snappea"].close()
        with pytest.raises(EnqueueError, match="that the server runs"):
            record.delay("away")
        (site.directory / "go").touch()
        wait_until(lambda: site.ledger.count("end", "running"))
        foreman.wait_for_output("The round failed")
    finally:
        site.server.start()
    connections["snappea"].close()
    foreman.wait_for_output("Reconnected to .*")
    wait_until(lambda: running.status is None)
    record.delay("after")
    wait_until(lambda: site.ledger.count("end", "after"))
    assert foreman.stop() == 0


def test_all_are_cut_off_for_longer_than_the_timeout(site: PostgresSite) -> None:
    """The first Foreman to reconnect does not consider the others dead."""
    pool = [site.foreman(NUM_WORKERS=1) for _ in range(3)]
    running = [wait_for.delay(f"{number}", str(site.directory / "go")) for number in range(3)]
    wait_until(lambda: site.ledger.keys("start").total() == 3)
    site.server.stop()
    try:
        connections["snappea"].close()
        time.sleep(5)  # FOREMAN_TIMEOUT is 4 s
    finally:
        site.server.start()
    for foreman in pool:
        foreman.wait_for_output("Reconnected to .*")
    back = "SELECT count(*) FROM snappea_presence WHERE seen_at > pg_postmaster_start_time()"
    wait_until(lambda: site.sql(back) == [(3,)])
    (site.directory / "go").touch()
    wait_until(lambda: [one.status for one in running] == [None] * 3)
    assert len(foremen_at_work()) == 3
    pool[0].kill()
    wait_until(lambda: len(foremen_at_work()) == 2 and Presence.objects.count() == 2)


def test_the_server_ends_the_connection(site: PostgresSite) -> None:
    foreman = site.foreman()
    site.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query <> '' AND pid <> pg_backend_pid()"
    )
    connections["snappea"].close()
    foreman.wait_for_output("Reconnected to .*")
    record.delay("after")
    wait_until(lambda: site.ledger.count("end", "after"))
    assert len(foremen_at_work()) == 1


def test_stopped_while_the_server_is_away(site: PostgresSite) -> None:
    """The next one interrupts its tasks."""
    foreman = site.foreman(GRACEFUL_TIMEOUT=0.1)
    cut_off = nap.delay("long", 600)
    wait_until(lambda: site.ledger.count("start", "long"))
    site.server.stop()
    try:
        foreman.send(signal.SIGTERM)
        assert foreman.wait() == 1
    finally:
        site.server.start()
    connections["snappea"].close()
    site.foreman()
    wait_until(lambda: cut_off.status == Status.INTERRUPTED)


def test_a_task_that_closes_all_descriptors_ends_the_foreman(site: PostgresSite) -> None:
    foreman = site.foreman()
    code = "from tests.playground.tasks import close_all\nclose_all.delay(sys.argv[1])"
    site.program(code, str(site.directory / "closed")).wait()
    assert foreman.wait() == 1


# statements


def test_moments_are_as_on_sqlite(site: PostgresSite) -> None:
    Task.objects.create(task_name="some.task", run_after="2026-01-02T03:04:05.6Z")
    Task.objects.create(task_name="some.task", run_after="2026-01-02T03:04:05Z")
    rows = raw(connect()).execute("SELECT run_after FROM snappea_task ORDER BY id").fetchall()
    assert rows == [("2026-01-02 03:04:05.600000",), ("2026-01-02 03:04:05",)]
    assert data_version(connect()) is None


def test_a_call_that_does_not_fit_the_table_is_refused(site: PostgresSite) -> None:
    with pytest.raises(EnqueueError, match="too long"):
        store.enqueue(CALL._replace(queue="q" * 101))
    assert nothing.delay().status == Status.READY


def test_settling_refuses_what_is_not_ones_own_any_more(site: PostgresSite) -> None:
    Task.objects.create(task_name="some.task")
    with transact(connect()) as db:
        first, second = (sharing.register(db, 1) for _ in range(2))
        sharing.be_known(db, first)
        (claim,) = store.claim(db, now(), 1, {"default": 1})
    assert Task.objects.get().foreman_id == first
    with transact(connect()) as db:
        sharing.be_known(db, second)
        store.give_back(db, [claim])  # as if the second one had claimed it, but could not commit
    assert Task.objects.get().status == Status.RUNNING
    wait_for_an_older_server(site)
    with transact(connect()) as db:
        db.execute("UPDATE snappea_presence SET seen_at = seen_at - interval '1 hour' WHERE id = ?", (first,))
        found = sharing.reap(db, now(), 2)
    assert [task.status for tasks in found.values() for task in tasks] == [Status.INTERRUPTED]
    with transact(connect()) as db:
        assert store.settle(db, now(), [Outcome(claim, 0.1)]) == 1
    assert Task.objects.get().status == Status.INTERRUPTED
    assert list(Presence.objects.values_list("pk", flat=True)) == [second]


def test_a_value_that_python_lacks_is_set_aside(site: PostgresSite) -> None:
    """As on SQLite: one row that was edited by hand stops no round, and can be shown."""
    wrong = [
        (column, value, status)
        for column in ("run_after", "expires_at", "enqueued_at", "started_at")
        for value in ("infinity", "-infinity", "20000-01-01")
        for status in ("ready", "scheduled")
    ]
    for column, value, status in [*wrong, ("lane_interval", "infinity", "ready")]:
        task = Task.objects.create(task_name=nothing.name, lane="lane")
        site.sql(f"UPDATE snappea_task SET status = ?, {column} = ? WHERE id = ?", status, value, task.pk)
    foreman = site.foreman()
    record.delay("canary")
    wait_until(lambda: site.ledger.count("end", "canary"), foreman.output())
    foreman.wait_for_output("Set aside task #1. .*run_after is 'infinity'")
    wait_until(lambda: not Task.objects.filter(status="ready"))
    assert {row.status for row in Task.objects.filter(exception="UnusableRow")} == {"failed"}
    assert foreman.stop() == 0
