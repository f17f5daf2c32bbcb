"""Asynchronous tasks on the event loop: many at a time, isolated, and ended where they wait."""

import os

import pytest

from snappea.models import Task
from snappea.queue import operations
from snappea.queue.database import connect, raw
from tests.playground import isolated
from tests.playground.coroutines import (
    block,
    cancel_itself,
    clean_up,
    facts,
    fail,
    few_at_a_time,
    leave_behind,
    nothing,
    retry_itself,
    sleep,
    slow_at_first,
    use_orm,
    wait_for,
    wait_late,
    wait_too_long,
)
from tests.playground.tasks import nap, record
from tests.playground.tasks import nothing as in_thread
from tests.playground.tasks import wait_for as wait_in_thread
from tests.site import DEADLINE, Site, wait_until


def test_many_run_at_once_beside_the_threads(site: Site) -> None:
    foreman = site.foreman("-v0", NUM_WORKERS=1, ASYNC_CONCURRENCY=1000)
    go = site.directory / "go"
    nap.delay("thread", 0.05)
    wait_for.delay_many((str(number), str(go)) for number in range(1010))
    wait_until(lambda: len(site.ledger.keys("start")) == 1001)
    record.delay("beside")
    wait_until(lambda: site.ledger.count("end", "beside"))
    wait_until(lambda: site.counts() == {"running": 1000, "ready": 10})
    go.touch()
    site.wait_until_empty()
    assert site.counts() == {} and set(site.ledger.keys("end").values()) == {1}
    assert foreman.stop() == 0


def test_what_waits_for_the_loop_does_not_keep_the_threads_waiting(site: Site) -> None:
    site.foreman("-v0", NUM_WORKERS=2, ASYNC_CONCURRENCY=1)
    go = site.directory / "go"
    wait_for.delay_many((f"async{number}", str(go)) for number in range(2000))
    record.delay_many((number,) for number in range(100))
    wait_until(lambda: sum(key.isdigit() for key in site.ledger.keys("end")) == 100)
    wait_until(lambda: site.counts() == {"running": 1, "ready": 1999})
    assert operations.cancel(Task.objects.filter(status="ready")) == 1999
    go.touch()
    site.wait_until_empty()


def test_what_waits_for_a_thread_does_not_keep_the_loop_waiting(site: Site) -> None:
    site.foreman(NUM_WORKERS=1)
    wait_in_thread.delay("long", str(site.directory / "go"))
    record.delay_many((number,) for number in range(100))
    assert sleep.apply_async((0.01,), priority=-100).get(timeout=DEADLINE) == 0.01
    (site.directory / "go").touch()
    site.wait_until_empty()


def test_what_a_coroutine_knows_and_does(site: Site) -> None:
    site.foreman()
    result = facts.delay()
    name, attempt, child, thread = result.get(timeout=DEADLINE)
    assert (name, attempt, thread) == (facts.name, 1, "snappea-loop")
    site.wait_until_empty()
    assert site.ledger.count("end", "child") == 1 and child == (result.id or 0) + 1
    row = result.refresh()
    assert row and (row.progress_done, row.progress_total, row.progress_note) == (3, 10, "on the loop")


def test_whatever_it_raises_it_fails_and_the_loop_goes_on(site: Site) -> None:
    foreman = site.foreman()
    for how, error in {
        "x": "ValueError: x",
        "exit": "SystemExit: enough",
        "cancelled": "CancelledError",
        "interrupt": "KeyboardInterrupt",
    }.items():
        task_id = fail.delay(how).id
        site.wait_until_empty()
        task = Task.objects.get(pk=task_id)
        assert task.status == "failed" and error in task.error and "in fail\n" in task.error
        assert sleep.delay(0).get(timeout=DEADLINE) == 0
    assert foreman.stop() == 0


def test_a_task_that_cancels_itself_in_its_last_step_has_failed(site: Site) -> None:
    site.foreman()
    results = {
        cancel_itself.delay("return"): "CancelledError",
        cancel_itself.delay("raise"): "ValueError: raise",
        isolated.cancel_itself.delay(): "CancelledError",
    }
    wait_until(lambda: {result.status for result in results} == {"failed"})
    for result, error in results.items():
        assert (row := result.refresh()) and error in row.error.splitlines()[-1]
    assert sleep.delay(0).get(timeout=DEADLINE) == 0


def test_retries(site: Site) -> None:
    site.foreman()
    retry_itself.delay("x")
    slow_at_first.delay("y")
    wait_until(lambda: site.ledger.count("start", "x") == 2 and site.ledger.count("end", "y") == 1)
    wait_until(lambda: not Task.objects.exists())


# limits and ends


def test_a_limit_arrives_as_itself(site: Site) -> None:
    site.foreman()
    wait_too_long.delay("x")
    site.wait_until_empty()
    assert site.ledger.count("ended", "x", "SoftTimeLimitExceeded") == 1
    task = Task.objects.get()
    assert task.status == "failed" and "await asyncio.sleep(60)" in task.error
    assert task.error.endswith("SoftTimeLimitExceeded: it took more than 0.2 s\n")


def test_after_a_limit_it_may_go_on_with_timeouts_of_its_own(site: Site) -> None:
    site.foreman()
    assert clean_up.delay().get(timeout=DEADLINE) == ["limit", "its own"]


def test_a_revocation_arrives_as_itself(site: Site) -> None:
    site.foreman()
    results = [wait_for.delay(str(number), str(site.directory / "go")) for number in range(3)]
    wait_until(lambda: len(site.ledger.keys("start")) == 3)
    assert results[1].revoke(terminate=True)
    wait_until(lambda: results[1].status == "cancelled")
    row = results[1].refresh()
    assert row and row.error.rstrip().endswith("TaskRevoked")
    (site.directory / "go").touch()
    site.wait_until_empty()
    assert set(site.ledger.keys("end")) == {"0", "2"}


def test_nothing_that_it_started_outlives_it(site: Site) -> None:
    foreman = site.foreman()
    leave_behind.delay("x")
    wait_until(lambda: site.ledger.count("gone", "x"))
    foreman.wait_for_output("leave_behind #1 ended and left 1 asyncio tasks running")
    leave_behind.delay("y", exits=True)
    foreman.wait_for_output("Something on the event loop raised SystemExit")
    assert sleep.delay(0).get(timeout=DEADLINE) == 0
    assert foreman.stop() == 0


@pytest.mark.long
def test_what_blocks_the_loop_is_named(site: Site) -> None:
    foreman = site.foreman()
    block.delay(5)
    sleep.delay(0)
    foreman.wait_for_output(
        r"The event loop is blocked by tests\.playground\.coroutines\.block #1, which does"
    )
    record.delay("beside")
    wait_until(lambda: site.ledger.count("end", "beside"))
    site.wait_until_empty()
    assert foreman.stop() == 0


def test_stopping_waits_and_then_interrupts(site: Site) -> None:
    foreman = site.foreman(GRACEFUL_TIMEOUT=4)
    results = [sleep.delay(0.2), wait_for.delay("x", "never"), wait_late.delay("y", "never")]
    wait_until(lambda: len(site.ledger.keys("start")) == 3)
    assert foreman.stop() == 0
    assert [result.status for result in results] == ["successful", "interrupted", "ready"]


def test_stopping_gives_back_what_the_blocked_loop_has_not_begun(site: Site) -> None:
    foreman = site.foreman(GRACEFUL_TIMEOUT=0)
    block.delay(60)
    wait_until(lambda: site.counts() == {"running": 1})
    result = sleep.delay(0)
    wait_until(lambda: site.counts() == {"running": 2})
    assert foreman.stop() == 0
    assert not site.ledger.count("start", result.id)
    task = Task.objects.get(pk=result.id)
    assert (task.status, task.attempts, task.interruptions) == ("ready", 0, 0)


def test_a_kill_interrupts(site: Site) -> None:
    foreman = site.foreman()
    results = [wait_for.delay("x", "never"), wait_late.delay("y", str(site.directory / "go"))]
    wait_until(lambda: len(site.ledger.keys("start")) == 2)
    foreman.kill()
    (site.directory / "go").touch()
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "y"))
    wait_until(lambda: [result.status for result in results] == ["interrupted", None])


# the database, lanes, queues, odd rows


def test_what_blocks_in_the_orm_blocks_only_itself(site: Site) -> None:
    site.foreman()
    slow = use_orm.delay(4.0)
    wait_until(lambda: site.ledger.count("blocking", slow.id))
    quick = use_orm.delay(0)
    count, *threads = quick.get(timeout=DEADLINE)
    assert count and len(set(threads)) == 1 and threads[0] != "snappea-loop"
    assert slow.status == "running"
    assert slow.get(timeout=DEADLINE)[1] not in threads


def test_limits_of_lanes_and_queues_hold(site: Site) -> None:
    site.foreman(QUEUES={"default": {"max_concurrency": 3}})
    few_at_a_time.delay_many((f"few{number}",) for number in range(10))
    wait_until(lambda: not Task.objects.exists())
    assert most_at_once(site) <= 2
    site.ledger.path.unlink()
    sleep.delay_many((0.02,) for _ in range(12))
    nap.delay_many((f"nap{number}", 0.02) for number in range(12))
    site.wait_until_empty()
    assert most_at_once(site) <= 3


def most_at_once(site: Site) -> int:
    running = most = 0
    for word, *_ in site.ledger.lines():
        running += {"start": 1, "end": -1}[word]
        most = max(most, running)
    return most


def test_a_row_that_is_wrong_about_its_task_runs_all_the_same(site: Site) -> None:
    """The function became asynchronous, or no longer is, after it was enqueued."""
    record.delay("sync")
    wait_for.delay("async", str(site.directory))
    site.sql("UPDATE snappea_task SET is_async = NOT is_async")
    site.foreman()
    site.wait_until_empty()
    assert set(site.ledger.keys("end")) == {"sync", "async"} and site.counts() == {}


def test_a_row_whose_task_has_a_process_of_its_own_by_now(site: Site) -> None:
    result = isolated.know_async.delay(0.01)
    site.sql("UPDATE snappea_task SET is_async = 1")
    foreman = site.foreman()
    assert result.get(timeout=DEADLINE) != foreman.pid


def test_rows_that_name_nothing_fail(site: Site) -> None:
    sleep.delay(0)
    site.sql("UPDATE snappea_task SET task_name = 'nowhere.nothing'")
    fail.delay("x")
    site.sql("UPDATE snappea_task SET args = '{' WHERE task_name LIKE '%fail'")
    site.foreman()
    site.wait_until_empty()
    first, second = Task.objects.order_by("pk").values_list("error", flat=True)
    assert "UnknownTask" in first and "UnreadableArguments" in second


def test_a_claim_costs_no_more_behind_a_million_of_the_other_kind(site: Site) -> None:
    db = raw(connect())
    for is_async in (0, 1):
        plan = db.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0"
            " AND is_async = ? AND queue = 'x' ORDER BY priority DESC, coalesce(turn, id), id LIMIT 5",
            (is_async,),
        ).fetchall()
        assert [step[3] for step in plan] == [
            "SEARCH snappea_task USING INDEX snappea_ready (is_async=? AND queue=?)"
        ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("threads", "on_loop", "workers", "concurrency"),
    [(0, 20_000, 4, 2000), (20_000, 2000, 4, 1000), (500, 500, 1, 1)],
)
def test_thousands_of_trivial_tasks_drain(
    site: Site, threads: int, on_loop: int, workers: int, concurrency: int
) -> None:
    """Ended tasks keep their logbook cells until that is committed: claims never exceed the free cells."""
    nothing.delay_many(() for _ in range(on_loop))
    in_thread.delay_many(() for _ in range(threads))
    foreman = site.foreman(
        "-v0", SYNCHRONOUS="FULL", NUM_WORKERS=workers, ASYNC_CONCURRENCY=concurrency, MAX_TASKS=10**6
    )
    site.wait_until_empty()
    assert site.counts() == {} and foreman.stop() == 0
    assert "ERROR" not in foreman.output()


def test_nothing_is_left_of_thousands(site: Site) -> None:
    foreman = site.foreman("-v0")
    _load(site)
    before = _holdings(foreman.pid)
    for _ in range(4):
        _load(site)
    wait_until(lambda: _holdings(foreman.pid) <= before)
    assert foreman.stop() == 0


def _load(site: Site) -> None:
    sleep.delay_many((0,) for _ in range(500))
    use_orm.delay_many((0,) for _ in range(50))
    fail.delay_many(("x",) for _ in range(50))
    leave_behind.delay_many(("x",) for _ in range(5))
    site.wait_until_empty()
    Task.objects.all().delete()


def _holdings(pid: int) -> tuple[int, int]:
    """Return how many threads and descriptors there are."""
    return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))
