"""Statistics: what is counted, when it is written, and that failures never harm a task."""

import sqlite3
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from snappea import stats
from snappea.foreman import statistics
from snappea.foreman.statistics import Stats
from snappea.models import Stat, Task
from snappea.monitoring import inspect
from snappea.queue import operations, store
from snappea.queue.clock import later
from snappea.queue.database import connect, raw, transact
from snappea.queue.records import Claim, ClaimExtras, Expired, Outcome
from snappea.stats import Histogram
from tests.minutes import write_minute
from tests.playground.tasks import fail, nap, record, wait_for
from tests.site import Site, wait_until

MOMENT = "2026-01-01 12:00:30.500000"


def outcome(name: str = "a.task", duration: float = 0.5, waited: float = 2.0, **rest: Any) -> Outcome:
    enqueued_at = later(MOMENT, -waited - duration)
    claim = Claim(0, 1, 1, name, "[]", "{}", enqueued_at=enqueued_at, extras_json=rest.pop("extras", None))
    return Outcome(claim, duration, **rest)


def written(counted: Stats) -> list[dict[str, Any]]:
    """Write what was counted, and return the rows of the tasks."""
    with transact(connect()) as db:
        counted.write(db, at_once=True)
    rows: Any = Stat.objects.exclude(task_name="").order_by("task_name").values()
    return list(rows)


def test_what_ended_is_counted_by_task(site: Site) -> None:
    counted = Stats(60)
    failed: dict[str, Any] = {"error": "error", "reason": "E: error"}
    counted.count([outcome(), outcome(duration=1.5, waited=4), outcome("b.task", **failed)], MOMENT)
    counted.count([outcome("b.task", **failed, retry_after=1.0)], MOMENT)
    counted.count([outcome("b.task", **failed, is_revoked=True)], MOMENT)
    counted.count_expired(
        [Expired(1, "b.task", "ready", None), Expired(2, "b.task", "successful", None)], MOMENT
    )
    first, second = written(counted)
    assert (first["task_name"], first["done"], first["failed"]) == ("a.task", 2, 0)
    assert first["minute"].isoformat() == "2026-01-01T12:00:00+00:00"
    assert (first["run_sum"], first["run_max"]) == (2.0, 1.5)
    assert (first["wait_sum"], first["wait_max"]) == pytest.approx((6.0, 4.0))
    numbers = ("done", "failed", "retried", "cancelled", "expired")
    assert [second[name] for name in numbers] == [0, 1, 1, 1, 1]


def test_a_task_waits_from_when_it_is_due(site: Site) -> None:
    counted = Stats(60)
    extras = ClaimExtras(run_after=later(MOMENT, -3.0)).as_json()
    counted.count([outcome(waited=3600, duration=1.0, extras=extras)], MOMENT)
    assert written(counted)[0]["wait_sum"] == pytest.approx(2.0)


def test_in_a_round_of_many_a_sample_tells_how_long_they_waited(site: Site) -> None:
    counted = Stats(60)
    counted.count([outcome(waited=2.0) for _ in range(640)], MOMENT)
    (row,) = written(counted)
    assert row["done"] == 640 and row["wait_sum"] / 640 == pytest.approx(2.0, rel=0.05)
    waits = Histogram.of(row["wait_times"])
    assert waits.total() == pytest.approx(640, rel=0.05) and 1.4 < (waits.percentile(0.5) or 0) < 2.9


def test_the_backlog_is_written_with_them(site: Site) -> None:
    for _ in range(3):
        Task.objects.create(task_name="x")
    counted = Stats(60)
    counted.look(raw(connect()))
    assert counted.backlog is None, "there is nothing to write"
    counted.count([outcome()], MOMENT)
    counted.look(raw(connect()))
    assert counted.backlog is None, "the minute is not over"
    counted._due = 0.0
    counted.look(raw(connect()))
    assert counted.backlog is not None
    with transact(connect()) as db:
        counted.write(db)
    assert Stat.objects.get(task_name="").backlog == 3 and counted.backlog is None


@pytest.mark.parametrize("enqueued_at", ["nonsense", "", "2026-01-01 12:00:00+00:00"])
def test_a_row_that_was_written_by_hand_is_counted_as_well(site: Site, enqueued_at: str) -> None:
    counted = Stats(60)
    counted.count([Outcome(Claim(0, 1, 1, "x", "[]", "{}", enqueued_at=enqueued_at), 0.0)], MOMENT)
    (row,) = written(counted)
    assert (row["done"], row["wait_sum"]) == (1, 0.0)
    assert Histogram.of(row["wait_times"]).total() <= 1
    assert (Histogram.of(row["run_times"]).percentile(0.5) or 1) < 0.001


def test_a_flood_of_names_is_bounded(site: Site) -> None:
    counted = Stats(60)
    counted.count([outcome(f"name {number}") for number in range(statistics.MOST_NAMES + 50)], MOMENT)
    rows = {row["task_name"]: row["done"] for row in written(counted)}
    assert len(rows) == statistics.MOST_NAMES + 1 and rows[statistics.OTHERS] == 50


def test_nothing_is_counted_if_none_are_to_be_kept(site: Site) -> None:
    counted = Stats(0)
    counted.count([outcome()], MOMENT)
    counted.count_expired([Expired(1, "b.task", "ready", None)], MOMENT)
    assert counted.backlog is None and not written(counted) and not Stat.objects.exists()


def test_old_ones_are_purged(site: Site) -> None:
    for minutes in (59, 60, 61, 600):
        Stat.objects.create(
            minute=f"2026-01-01T{later('2026-01-01 12:00:00', -60 * minutes)[11:]}Z", task_name="old"
        )
    counted = Stats(60)
    counted.count([outcome()], MOMENT)
    written(counted)
    assert Stat.objects.filter(task_name="old").count() == 2


@pytest.mark.parametrize(
    "trouble", ["DROP TABLE snappea_stat", "CREATE UNIQUE INDEX one ON snappea_stat (done)"]
)
def test_a_failure_of_theirs_touches_no_task(
    site: Site, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything else in the same transaction is written."""
    site.sql(trouble)
    task = Task.objects.create(task_name="x", status="running", claims=1)
    counted = Stats(60)
    counted.count([outcome("a"), outcome("b")], MOMENT)
    claim = Claim(0, task.pk, 1, "x", "[]", "{}")
    with transact(connect()) as db:
        store.settle(db, MOMENT, [Outcome(claim, 0.1)])
        counted.write(db, at_once=True)
    assert not Task.objects.exists() and "statistics" in caplog.text
    assert counted.backlog is None


def test_if_the_whole_transaction_is_given_up_the_next_try_is_without_them(site: Site) -> None:
    counted = Stats(60)
    counted.count([outcome()], MOMENT)
    db = raw(connect())
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    counted._counters |= {str(key) * 100: statistics._Counter() for key in range(1000)}
    db.execute(f"PRAGMA max_page_count = {pages + 1}")
    try:
        with pytest.raises(sqlite3.OperationalError, match="full"), transact(connect()) as db:
            counted.write(db, at_once=True)
    finally:
        db.execute("PRAGMA max_page_count = 1000000000")
    assert not written(counted)


def test_the_foreman_writes_them_and_no_more_when_idle(site: Site) -> None:
    """At the latest when the Foreman stops."""
    foreman = site.foreman()
    for key in range(5):
        record.delay(key)
    fail.delay("x")
    wait_until(lambda: site.counts() == {"failed": 1})
    assert foreman.stop() == 0
    rows = dict(site.sql("SELECT task_name, sum(done + failed) FROM snappea_stat GROUP BY 1"))
    assert rows == {record.name: 5, fail.name: 1, "": 6}
    assert site.sql("SELECT sum(starts) FROM snappea_stat") == [(1,)]


def test_a_minute_is_written_once_it_is_over(site: Site) -> None:
    """Also if there is no other transaction."""
    foreman = site.program(
        "from datetime import datetime\n"
        "from snappea.foreman import statistics as stats\n"
        "begin = stats.Stats._begin\n"
        "def hasty(self, moment):\n"
        "    begin(self, moment)\n"
        "    self._due = min(self._due, stats.time.monotonic() + 0.5)\n"
        "stats.Stats._begin = hasty\n"
        "from django.core.management import call_command\ncall_command('runsnappea')\n".replace("\\\n", "\n")
    )
    foreman.wait_for_output("tasks ready")
    record.delay("x")
    wait_until(lambda: site.sql("SELECT done FROM snappea_stat WHERE task_name <> ''") == [(1,)])


@given(st.lists(st.floats(1e-6, 1e5), min_size=1, max_size=200), st.sampled_from([0.05, 0.5, 0.95, 1.0]))
def test_a_percentile_is_true_to_within_the_width_of_a_bucket(durations: list[float], share: float) -> None:
    counter = Stats(60)
    counter.count([outcome(duration=duration) for duration in durations], MOMENT)
    histogram = Histogram(counter._counters["a.task"].run_times)
    found = histogram.percentile(share)
    true = sorted(durations)[max(0, -(-round(share * len(durations) * 1000) // 1000) - 1)]
    assert found is not None and true / 1.5 <= found <= true * 1.5


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"a": 1}', '{"1": null}', '{"1": 0}'])
def test_a_histogram_that_cannot_be_read_is_empty(text: str) -> None:
    assert Histogram.of(text).percentile(0.95) is None


@pytest.mark.on_both
def test_history_puts_minutes_together(site: Site) -> None:
    for minutes, done in ((0, 1), (1, 2), (4, 4), (5, 8), (9, 16), (10, 32)):
        times = {"run_times": {0: done}, "wait_times": {2: 1}}
        counts: dict[str, Any] = {
            "x": {"done": done, "failed": 1, **times},
            "y": {"done": 100, "retried": 3},
        }
        write_minute(minutes, counts, starts=int(minutes == 4))
    early, late = stats.history(2, 5, "x")
    assert (early.done, late.done) == (24, 7) and (early.failed, late.failed) == (2, 3)
    assert (late.run_times, late.wait_times) == ({0: 7}, {2: 3})
    assert (early.starts, late.starts) == (0, 1), "restarts are shown with each task"
    early, late = stats.history(2, 5)
    assert (early.done, late.done, late.others, late.starts) == (224, 307, 9, 1)
    assert (late.run_times, late.wait_times) == ({0: 7}, {2: 3})
    assert stats.history(1, 1)[0].done == 101


@pytest.mark.on_both
def test_a_start_is_counted_in_its_minute(site: Site) -> None:
    """Also while there is nothing to do, and once for each Foreman."""
    for _ in range(2):
        Stats(60).write_start(connect())
    Stats(0).write_start(connect())
    (period,) = stats.history(1, 2)
    assert (period.starts, period.runs) == (2, 0)


def test_a_start_that_cannot_be_written_stops_no_foreman(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.sql("DROP TABLE snappea_stat")
    Stats(60).write_start(connect())
    assert "start" in caplog.text


@pytest.mark.on_both
def test_the_upgrade_adds_up_the_minutes_that_are_there(site: Site) -> None:
    for minute, name, done in ((1, "x", 3), (1, "y", 4), (1, "", 0), (2, "x", 5), (2, "", 0)):
        moment = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=minute)
        Stat.objects.create(minute=moment, task_name=name, done=done, failed=1 if name else 0)
    site.sql(import_module("snappea.migrations.0003_console").ADD_UP)
    before, after = stats.history(3, 1)[:2]
    assert (before.done, before.failed, after.done, after.failed) == (5, 1, 7, 2)
    assert before.wait_times.percentile(0.5) is None


def test_history_is_read_by_an_index(site: Site) -> None:
    plan = [row[3] for row in site.sql(f"EXPLAIN QUERY PLAN {stats._OF_TASK}", "x", "2026")]
    assert [step for step in plan if "snappea_stat" in step] == [
        "SEARCH snappea_stat USING INDEX snappea_stat_of_task (task_name=? AND minute>?)"
    ]


def test_a_snapshot_of_nothing(site: Site) -> None:
    seen = stats.snapshot()
    assert seen["foremen"] == [] and seen["oldest"] is None and set(seen["counts"].values()) == {0}
    assert [state["name"] for state in seen["queues"]] == ["default"]
    assert not seen["running"] and not seen["tasks"] and not seen["failures"]


def test_a_snapshot_of_a_foreman_at_work(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=3)
    go_on = site.directory / "go on"
    wait_for.delay("x", str(go_on))
    fail.delay("y")
    Task.objects.create(task_name="later", status="scheduled", run_after=timezone.now() + timedelta(hours=1))
    operations.pause("slow")
    nap.apply_async(("z", 1), queue="slow")
    wait_until(lambda: site.counts() == {"failed": 1, "running": 1, "scheduled": 1, "ready": 1})
    wait_until(lambda: stats.snapshot()["running"])
    seen = stats.snapshot()
    (alive,) = seen["foremen"]
    assert (alive["pid"], alive["busy"], alive["workers"], alive["stuck"]) == (foreman.pid, 1, 3, [])
    assert alive["memory"] > 10_000_000 and timezone.now() - alive["since"] < timedelta(minutes=5)
    assert {state: number for state, number in seen["counts"].items() if number} == site.counts()
    (run,) = seen["running"]
    assert (run["task_name"], run["queue"], run["limit"]) == (wait_for.name, "default", None)
    slow = next(state for state in seen["queues"] if state["name"] == "slow")
    assert slow["ready"] == 1 and slow["oldest"] >= 0 and slow["paused_since"]
    (failure,) = seen["failures"]
    assert failure["exception"] == "ValueError" and failure["number"] == 1
    assert failure["place"].startswith("playground/tasks.py:") and failure["place"].endswith("in fail")
    assert {task["name"]: task["pending"] for task in seen["tasks"]}[nap.name] == 1
    assert seen["oldest"] is None, "what waits in a paused queue is meant to wait"
    go_on.touch()
    foreman.kill()
    assert stats.snapshot()["foremen"] == []


def test_a_task_that_is_due_again_has_not_waited_since_it_was_enqueued(site: Site) -> None:
    """And it does not hide another task that has waited."""
    moment = timezone.now()
    Task.objects.create(task_name="x", enqueued_at=moment - timedelta(hours=1), run_after=moment)
    Task.objects.create(task_name="x", enqueued_at=moment - timedelta(minutes=1))
    oldest = inspect.oldest_wait(inspect.queues())
    assert oldest is not None and 55 < oldest < 120


def test_all_queues_and_groups_of_failures_are_found_without_a_scan(site: Site) -> None:
    made = []
    for is_async, queue, priority in (
        (False, "b", 5),
        (True, "a", 0),
        (False, "b", -3),
        (False, "b", 5),
        (False, "c", 0),
        (True, "b", 1),
    ):
        made.append(Task.objects.create(task_name="x", is_async=is_async, queue=queue, priority=priority).pk)
    found = {state.name: state.ready for state in inspect.queues()}
    assert found == {"a": 1, "b": 4, "c": 1, "default": 0}
    assert {state.name: state.ready for state in inspect.queues(most=1)}["b"] == 1
    assert inspect.ready_ids(1, 3) == made[1:4] and inspect.ready_ids(0, 2, True) == made[:3:-1]
    kinds = [("A", "p", "x"), ("A", "p", "y"), ("A", "q", "x"), ("B", "", "x")]
    for exception, place, name in [*kinds, *kinds]:
        Task.objects.create(task_name=name, status="failed", exception=exception, place=place)
    assert inspect.kinds_of_failure() == [(exception, name) for exception, _place, name in kinds]


def test_nothing_that_is_looked_at_takes_a_scan(site: Site) -> None:
    """With any number of rows: by indexes alone, or with a bounded number of rows."""
    statements = {
        name: text for name, text in vars(inspect).items() if name.isupper() and isinstance(text, str)
    }
    looked = {"_QUEUES", "_ALL_COUNTS", "_NAMES", "_FAILURES", "_IN_FLIGHT"}
    assert looked <= statements.keys()
    for name, text in statements.items():
        if "SELECT" not in text or name in ("_RUNNING", "_RAISED"):
            continue
        steps = [row[3] for row in site.sql(f"EXPLAIN QUERY PLAN {text}", *["1"] * text.count("?"))]
        for step in steps:
            if "snappea_task" in step:
                assert "INDEX snappea_" in step or "INTEGER PRIMARY KEY" in step, (name, step)
