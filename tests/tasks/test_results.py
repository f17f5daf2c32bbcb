"""AsyncResult: results, how long they are kept, and revoke()."""

import json
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils.timezone import now

from snappea import AsyncResult
from snappea.errors import ResultNotKept, TaskFailed
from snappea.models import Task
from snappea.queue import operations, recovery, store
from snappea.queue.database import connect, raw
from snappea.queue.logbook import Entry, Note
from snappea.queue.records import Claim
from snappea.queue.store import AT_ONCE
from snappea.workers.threads import WorkerPool, drain
from tests.playground.lifecycle import (
    add,
    brief,
    fail_with_result,
    give,
    give_when,
    loop,
    loop_async,
    loop_bravely,
    loop_in_vain,
)
from tests.playground.tasks import fail, nap, nothing, record, wait_for
from tests.site import DEADLINE, Site, wait_until

# results


def test_a_result_comes_back(site: Site) -> None:
    site.foreman()
    result = add.delay(2, 3)
    assert result.get(timeout=DEADLINE) == 5
    assert result.get() == 5 and result.status == "successful", "it can be asked for again"
    row = Task.objects.get()
    assert (row.result, row.error, row.status) == ("5", "", "successful")
    assert row.finished_at is not None and row.expires_at == row.finished_at + timedelta(seconds=60)


def test_what_comes_back_is_equal(site: Site) -> None:
    """Except tuples, which come back as lists."""
    (site.directory / "go").touch()
    site.foreman()
    values: list[Any] = [None, "", 0, False, "é\u2028\0", [1, [2.5, None]], {"a": {"b": []}}]
    for what in values:
        result = give_when.delay(str(site.directory / "go"), what)
        assert result.get(timeout=DEADLINE) == what
        assert json.loads(Task.objects.get(pk=result.id).result) == what
    assert give.delay("tuple").get(timeout=DEADLINE) == [1, 2]
    assert give.delay("none").get(timeout=DEADLINE) is None


def test_another_process_gets_the_result(site: Site) -> None:
    result = give_when.delay(str(site.directory / "go"), "the result")
    code = (
        "from snappea import AsyncResult\nprint('waiting')\nprint('got', AsyncResult(int(sys.argv[1])).get())"
    )
    asking = site.program(code, str(result.id))
    asking.wait_for_output("waiting")
    site.foreman()
    (site.directory / "go").touch()
    assert asking.wait() == 0 and "got the result" in asking.output()


def test_many_ask_for_the_same_result(site: Site) -> None:
    site.foreman()
    result = give_when.delay(str(site.directory / "go"), 42)
    got: list[Any] = []

    def ask() -> None:
        got.append(AsyncResult(result.id).get(timeout=DEADLINE))
        connect().close()

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    (site.directory / "go").touch()
    for thread in threads:
        thread.join()
    assert got == [42] * 5


def test_get_waits_no_longer_than_it_may(site: Site) -> None:
    result = add.delay(2, 3)
    for timeout in (0, 0.1):
        why = "no Foreman runs; start it: python manage.py runsnappea"
        with pytest.raises(TimeoutError, match=rf"Task #1 has not ended within {timeout} s: {why}\."):
            result.get(timeout=timeout)
    site.foreman()
    assert result.get(timeout=DEADLINE) == 5
    later = add.apply_async((2, 3), countdown=600)
    with pytest.raises(TimeoutError, match=rf"Task #{later.id} has not ended within 0 s\."):
        later.get(timeout=0)


def test_the_status_on_the_way(site: Site) -> None:
    result = give_when.apply_async((str(site.directory / "go"), 1), countdown=0.5)
    assert result.status == "scheduled"
    site.foreman()
    wait_until(lambda: result.status == "running")
    before = result.refresh()
    assert before is not None and before.started_at is not None and before.result is None
    (site.directory / "go").touch()
    wait_until(lambda: result.status == "successful")
    after = result.refresh()
    assert after is not None and after.result == "1"


# what leaves none


def test_a_failure_is_raised_with_its_traceback(site: Site) -> None:
    site.foreman()
    with pytest.raises(TaskFailed, match=r"fail_with_result #1 is failed\.") as raised:
        fail_with_result.delay().get(timeout=DEADLINE)
    assert "in fail_with_result\n    raise ValueError" in raised.value.traceback
    assert "ValueError: no result" in str(raised.value)
    assert fail.delay("x").status is not None


def test_a_failure_can_be_asked_for_without_a_result_ttl(site: Site) -> None:
    site.foreman()
    result = fail.delay("x")
    wait_until(lambda: result.status == "failed")
    with pytest.raises(TaskFailed, match="ValueError: no luck with x"):
        result.get()


def test_what_is_not_json_is_a_failure(site: Site) -> None:
    site.foreman()
    with pytest.raises(TaskFailed, match=r"give\(\): its result is a set, which is not JSON: pass sorted"):
        give.delay("set").get(timeout=DEADLINE)
    row = Task.objects.get()
    assert (row.status, row.result) == ("failed", None)
    assert "UnserializableResult" in row.error and "remove result_ttl" in row.error
    assert row.attempt_errors()[0]["error"].startswith("UnserializableResult: ")


def test_a_task_that_keeps_no_result_says_so_at_once(site: Site) -> None:
    with pytest.raises(ResultNotKept, match=r"nothing keeps no result\. Declare it with @task\(result_ttl="):
        nothing.delay().get()


def test_what_is_gone_or_never_was(site: Site) -> None:
    site.foreman()
    result = nothing.delay()
    wait_until(lambda: result.status is None)
    assert result.refresh() is None
    for gone in (result, AsyncResult(12345)):
        with pytest.raises(ResultNotKept, match=rf"The row of task #{gone.id} is gone: it succeeded"):
            gone.get()
        assert gone.revoke() is gone.revoke(terminate=True) is False
    assert isinstance(ResultNotKept(), LookupError)


def test_a_result_that_was_lost_with_the_foreman(site: Site) -> None:
    """The task had returned when the Foreman died, but the result was not written yet."""
    Task.objects.create(task_name=add.name, status="running", claims=1, attempts=1, result_ttl=60)
    recovery.recover(raw(connect()), "2100-01-01 12:00:00.5", {Entry.of(1, 1, None): Note.SUCCEEDED})
    row = Task.objects.get()
    assert row.status == "successful" and row.expires_at is not None and row.finished_at is not None
    assert abs(row.expires_at - row.finished_at - timedelta(seconds=60)) <= timedelta(seconds=1)
    with pytest.raises(ResultNotKept, match="It succeeded; the Foreman died before the result was written"):
        AsyncResult(1).get()


def test_an_eager_result_is_there_at_once(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {"TASK_ALWAYS_EAGER": True}
    result = add.delay(2, 3)
    assert (result.id, result.get(), result.get(timeout=0), result.status) == (None, 5, 5, "successful")
    assert result.refresh() is None and result.revoke(terminate=True) is False
    assert nothing.delay().get() is None
    assert [each.get() for each in add.delay_many([(1, 1), (2, 2)])] == [2, 4]
    assert add.apply_async((1,), {"second": 2}, countdown=60).get() == 3


def test_results_can_be_compared_and_kept_in_sets() -> None:
    assert AsyncResult(1) == AsyncResult(1) != AsyncResult(2)
    assert len({AsyncResult(1), AsyncResult(1), AsyncResult(2)}) == 2
    assert repr(AsyncResult(1)) == "AsyncResult(1)" and AsyncResult(1) != 1


# how long they are kept


def test_a_result_goes_when_its_time_has_passed(site: Site) -> None:
    foreman = site.foreman()
    short, long = brief.delay(), add.delay(2, 3)
    assert short.get(timeout=DEADLINE) == "brief"
    row = short.refresh()
    assert row is not None and row.expires_at is not None
    wait_until(lambda: short.status is None)
    assert now() >= row.expires_at
    with pytest.raises(ResultNotKept):
        short.get()
    assert long.get() == 5
    assert "Expired" not in foreman.output(), "that is no news: it was run"


def test_many_results_go_while_tasks_run(site: Site) -> None:
    count = 5 * AT_ONCE
    site.sql(
        "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)"
        "INSERT INTO snappea_task"
        " (task_name, status, enqueued_at, finished_at, expires_at, result, result_ttl)"
        "SELECT ?, 'successful', datetime('now'), datetime('now'), datetime('now'), '1', 0 FROM number",
        count,
        add.name,
    )
    kept = Task.objects.create(
        task_name=add.name, status="successful", expires_at=now() + timedelta(hours=1), result="1"
    )
    site.foreman()
    for number in range(20):
        record.delay(number)
    wait_until(lambda: len(site.ledger.keys("end")) == 20)
    wait_until(lambda: site.counts() == {"successful": 1})
    assert Task.objects.get() == kept


# revoke() of what waits


def test_revoke_of_what_waits(site: Site) -> None:
    ready, scheduled, next_one = (
        record.delay("x"),
        record.apply_async(("y",), countdown=0.5),
        record.delay("z"),
    )
    assert ready.revoke() and scheduled.revoke(terminate=True)
    assert ready.status is scheduled.status is None
    assert not ready.revoke(), "it has already ended"
    site.foreman(NUM_WORKERS=1)
    wait_until(lambda: next_one.status is None)
    nap.delay("late", 0.6)  # for y to run, if it could
    wait_until(lambda: site.ledger.count("end", "late"))
    assert site.ledger.keys("start").keys() == {"z", "late"}


def test_revoke_of_what_runs_or_has_ended(site: Site) -> None:
    site.foreman()
    running = wait_for.delay("x", str(site.directory / "go"))
    done, failed = add.delay(2, 3), fail.delay("x")
    wait_until(lambda: (running.status, done.status, failed.status) == ("running", "successful", "failed"))
    for result in (running, done, failed):
        assert result.revoke() is False, "without terminate, nothing that was begun is touched"
    assert done.revoke(terminate=True) is failed.revoke(terminate=True) is False
    (site.directory / "go").touch()
    wait_until(lambda: running.status is None)
    assert site.ledger.count("end", "x") == 1


# revoke(terminate=True)


@pytest.mark.parametrize(("task", "workers"), [(loop, 1), (loop_bravely, 3)])
def test_terminate(site: Site, wakeups: str, task: Any, workers: int) -> None:
    """Even if all workers are busy; and no `except Exception` stops it."""
    foreman = site.foreman(NUM_WORKERS=workers)
    result = task.delay("x")
    wait_until(lambda: site.ledger.count("start", "x"))
    assert result.revoke(terminate=True)
    wait_until(lambda: result.status == "cancelled")
    assert site.ledger.count("end", "x") == 1, "its finally was run"
    row = Task.objects.get()
    assert "TaskRevoked" in row.error and row.finished_at is not None and row.attempts == 1
    assert [line["attempt"] for line in row.attempt_errors()] == [1]
    foreman.wait_for_output(rf"WARNING Cancelled .*{task.__name__} #1 after [\d.]+ s")
    with pytest.raises(TaskFailed, match="is cancelled"):
        result.get()
    assert result.revoke(terminate=True) is False
    record.delay_many((number,) for number in range(50))
    wait_until(lambda: len(site.ledger.keys("end")) == 51)
    wait_until(lambda: site.counts() == {"cancelled": 1})


def test_terminate_ends_the_one_and_no_other(site: Site) -> None:
    site.foreman(NUM_WORKERS=3)
    results = [loop.delay(key) for key in "abc"]
    wait_until(lambda: len(site.ledger.keys("start")) == 3)
    assert results[1].revoke(terminate=True)
    wait_until(lambda: results[1].status == "cancelled")
    assert [result.status for result in results] == ["running", "cancelled", "running"]
    assert site.ledger.keys("end") == {"b": 1}


def test_the_next_task_of_the_worker_is_not_touched(site: Site) -> None:
    """Each is revoked while the next one waits."""
    site.foreman(NUM_WORKERS=1)
    for number in range(5):
        result = loop.delay(f"loop-{number}")
        record.delay(f"next-{number}")
        wait_until(lambda number=number: site.ledger.count("start", f"loop-{number}"))  # type: ignore[misc]
        result.revoke(terminate=True)
        wait_until(lambda number=number: site.ledger.count("end", f"next-{number}"))  # type: ignore[misc]
    wait_until(lambda: site.counts() == {"cancelled": 5})


def test_a_task_may_refuse_to_end(site: Site) -> None:
    site.foreman(NUM_WORKERS=1)
    result = loop_in_vain.delay("x")
    wait_until(lambda: site.ledger.count("start", "x"))
    assert result.revoke(terminate=True)
    wait_until(lambda: result.status is None)
    assert site.ledger.count("end", "x") == 1, "it returned, and so it has succeeded"


def test_an_asynchronous_task_can_be_ended(site: Site) -> None:
    site.foreman()
    result = loop_async.delay("x")
    wait_until(lambda: site.ledger.count("start", "x"))
    assert result.revoke(terminate=True)
    wait_until(lambda: result.status == "cancelled")
    assert site.ledger.count("end", "x") == 1 and site.ledger.count("whole", "x") == 0


def test_what_is_revoked_while_the_foreman_is_away_does_not_run_again(site: Site) -> None:
    foreman = site.foreman()
    result = loop.delay("x")
    wait_until(lambda: site.ledger.count("start", "x"))
    foreman.kill()
    Task.objects.update(acks_late=True)
    assert result.status == "running" and result.revoke(terminate=True)
    site.foreman()
    wait_until(lambda: result.status == "cancelled")
    record.delay("next")
    wait_until(lambda: site.ledger.count("end", "next"))
    assert site.ledger.count("start", "x") == 1


def test_what_was_claimed_but_not_begun_is_ended_as_well(site: Site) -> None:
    """It was claimed ahead, and waits for a worker."""
    wakings: list[int] = []
    pool = WorkerPool(1, _Notes(), lambda: wakings.append(1))  # type: ignore[arg-type]
    go = site.directory / "go"
    claims = [
        Claim(0, number, 1, wait_for.name, json.dumps([number, str(go)]), "{}", "default")
        for number in (1, 2)
    ]
    pool.hand_over(list(enumerate(claims)))
    wait_until(lambda: site.ledger.count("start", 1))
    pool.revoke(1, claims[1])
    ((cell, outcome),) = drain(pool.outcomes)
    assert (cell, outcome.claim.id, outcome.is_revoked) == (1, 2, True)
    go.touch()
    wait_until(lambda: pool.outcomes)
    ((cell, outcome),) = drain(pool.outcomes)
    assert (cell, outcome.error) == (0, "") and site.ledger.count("start", 2) == 0


class _Notes:
    """A logbook that records nothing."""

    def note(self, cell: int, note: int) -> None: ...


def test_what_was_claimed_but_is_given_back_is_cancelled(site: Site) -> None:
    Task.objects.create(task_name=record.name, status="running", claims=1, attempts=1, is_revoked=True)
    store.give_back(raw(connect()), [Claim(0, 1, 1, record.name, "[]", "{}", "default")])
    assert Task.objects.get().status == "cancelled"


def test_a_cancelled_task_can_be_run_again(site: Site) -> None:
    site.foreman()
    result = loop.delay("x")
    for times in (1, 2):
        wait_until(lambda times=times: site.ledger.count("start", "x") == times)  # type: ignore[misc]
        wait_until(lambda: result.status == "running")
        assert result.revoke(terminate=True)
        wait_until(lambda: result.status == "cancelled")
        assert operations.requeue(Task.objects.all()) == 1
    wait_until(lambda: site.ledger.count("start", "x") == 3)
    row = result.refresh()
    assert row is not None and not row.is_revoked and row.attempts == 1


def test_a_clock_that_stands_still_does_not_keep_it_waiting(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = give.delay("set")
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    monkeypatch.setattr(time, "time", lambda: 1.8e9)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.1)
