"""`snappea.testing`: the calls of a test, in memory and as rows; both behave the same."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.core import mail
from django.db import connections, transaction

from snappea import AsyncResult, Retry, TaskFunction, astep, current_task, cursor, errors, signals, step, task
from snappea.conf import collects
from snappea.django_tasks.framework import TaskResultStatus, task_finished
from snappea.errors import AlreadyEnqueued
from snappea.models import Task
from snappea.tasks import memory_engine
from snappea.testing import assert_enqueued, clear, drain, enqueued, override_snappea
from tests.playground import djangotasks
from tests.playground.tasks import echo, fail, nothing, record, record_async
from tests.site import Made, Site


@pytest.fixture
def memory(site: Site, settings: Any) -> Iterator[None]:
    """Keep calls in memory."""
    settings.SNAPPEA = site.settings | {"IN_TESTS": "collect"}
    clear()
    yield
    assert site.counts() == {}, "nothing was written"


@pytest.fixture(params=["collect", "write"])
def calls(request: pytest.FixtureRequest, site: Site, settings: Any) -> str:
    """Run a test twice: with calls in memory, and with rows."""
    settings.SNAPPEA = site.settings | {"IN_TESTS": request.param}
    clear()
    return str(request.param)


def words(site: Site, word: str) -> list[str]:
    return [line[1] for line in site.ledger.lines() if line[0] == word]


# what decides


def test_calls_are_kept_in_memory_while_tests_run_and_only_then(site: Site, settings: Any) -> None:
    assert not collects(), "our own tests say so"
    settings.SNAPPEA = {}
    assert collects(), "the default"
    code = "from snappea.conf import collects\nfrom django.core import mail\nmail.outbox = []\n"
    code += "assert not collects()\nimport django.test.utils\nassert not collects()\n"
    code += "from django.test import utils\nutils.setup_test_environment()\nassert collects()\n"
    code += "utils.teardown_test_environment()\nassert not collects()\n"
    site.settings["IN_TESTS"] = "collect"
    process = site.program(code)
    assert process.wait() == 0, process.output()


@pytest.mark.usefixtures("executed")
def test_an_enqueue_does_not_load_what_only_tests_need(site: Site) -> None:
    process = site.program("print(nothing.delay().id, {'django.test.utils', 'unittest'} & set(sys.modules))")
    assert process.wait() == 0
    assert process.output() == "1 set()\n"


# in memory


def test_no_database_is_asked(memory: None) -> None:
    for connection in connections.all():
        connection.close()
    result = record.delay("x")
    record.delay_many([("y",), ("z",)])
    record.apply_async(("w",), countdown=60, priority=3, queue="slow")
    assert result.status == "ready" and isinstance(result.id, int)
    assert [call.args for call in enqueued(record)] == [["x"], ["y"], ["z"], ["w"]]
    assert all(connection.connection is None for connection in connections.all())


def test_what_a_row_would_say(memory: None, made: Made) -> None:
    @made
    def give() -> int:
        return 42

    result = give.apply_async(priority=5, queue="mail", countdown=60)
    row = result.refresh()
    assert row and (row.pk, row.status, row.priority, row.queue) == (result.id, "scheduled", 5, "mail")
    assert row.run_after and row.run_after > datetime.now(UTC) + timedelta(seconds=50)
    with pytest.raises(errors.ResultNotKept, match="keeps no result"):
        nothing.delay().get()


def test_nobody_waits_for_what_nobody_runs(memory: None, made: Made) -> None:
    @made
    def give() -> int:
        return 42

    result = give.apply_async(result_ttl=60)
    with pytest.raises(
        TimeoutError, match=r"waits in memory, because tests run: call snappea\.testing\.drain\(\)"
    ):
        result.get()
    assert drain() == 1
    assert result.get() == 42 and result.status == "successful"


def test_revoking(memory: None) -> None:
    result = record.delay("x")
    assert result.revoke() and not result.revoke(terminate=True)
    assert result.status is None and enqueued() == [] and drain() == 0


def test_arguments_are_checked_as_ever(memory: None) -> None:
    with pytest.raises(errors.UnserializableArgument):
        record.delay(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        record.delay()  # type: ignore[call-arg]
    with pytest.raises(errors.UnknownQueue), override_snappea(QUEUES={"mail": {}}):
        record.apply_async(("x",), queue="nope")
    assert enqueued() == []


def test_threads_enqueue_as_well(memory: None) -> None:
    threads = [threading.Thread(target=lambda: [nothing.delay() for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({call.id for call in enqueued()}) == 2000


def test_the_signal_is_sent(memory: None) -> None:
    told: list[int] = []

    def note(id: int, **kwargs: Any) -> None:
        told.append(id)

    signals.task_enqueued.connect(note)
    try:
        result = record.delay("x")
    finally:
        signals.task_enqueued.disconnect(note)
    assert told == [result.id]


def test_on_commit(memory: None) -> None:
    with transaction.atomic():
        record.delay_on_commit("x")
        assert enqueued() == []
    assert_enqueued(record, "x")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        record.delay_on_commit("y")
        raise ZeroDivisionError
    assert len(enqueued()) == 1


def test_the_calls_of_a_test_are_not_lost_with_its_mails(memory: None) -> None:
    """As Django's manual clears them in the middle of a test."""
    record.delay("x")
    mail.outbox = []
    assert_enqueued(record, "x")


# both


def test_assert_enqueued(calls: str) -> None:
    echo.delay(1, two=(2, 3))
    record.apply_async(kwargs={"key": "x"}, countdown=60)
    found = assert_enqueued(record, "x")
    assert (found.task_name, found.kwargs, found.queue) == (record.name, {"key": "x"}, "default")
    assert found.run_after and found.run_after > datetime.now(UTC)
    assert_enqueued(record, key="x")
    assert_enqueued(echo, 1, two=[2, 3])
    with pytest.raises(AssertionError) as raised:
        assert_enqueued(record, "y")
    assert str(raised.value) == (
        "tests.playground.tasks.record('y') was not enqueued. Waiting calls:\n"
        "    tests.playground.tasks.echo(1, two=[2, 3])\n"
        "    tests.playground.tasks.record(key='x')"
    )
    with pytest.raises(TypeError):
        assert_enqueued(record)  # type: ignore[call-arg]


def test_nothing_was_enqueued(calls: str) -> None:
    with pytest.raises(AssertionError, match=r"record\('y'\) was not enqueued\. No calls wait\."):
        assert_enqueued(record, "y")
    assert enqueued() == [] and drain() == 0


def test_defaults_and_what_a_hook_adds_do_not_matter(calls: str, made: Made) -> None:
    @made
    def greet(name: str, loudly: bool = False) -> None: ...

    with override_snappea(HOOK_ADD_TASK_KWARGS=lambda: {"_trace": "abc"}):
        greet.delay("x", False)
        assert enqueued()[0].kwargs == {"_trace": "abc"}
        assert_enqueued(greet, "x")
        with pytest.raises(AssertionError):
            assert_enqueued(greet, "x", loudly=True)


def test_drain_runs_all_in_the_order_of_the_foreman(site: Site, calls: str) -> None:
    record.delay("first")
    record.apply_async(("urgent",), priority=10, queue="other")
    record_async.delay("asynchronous")
    record.apply_async(("later",), countdown=60)
    assert drain() == 3
    assert words(site, "start") == ["urgent", "first", "asynchronous"]
    assert [call.args for call in enqueued()] == [["later"]]


def test_scheduled_ones_in_the_order_of_their_times(site: Site, calls: str) -> None:
    record.apply_async(("last",), countdown=7200, priority=50)
    record.apply_async(("first",), countdown=60)
    record.apply_async(("second",), countdown=3600)
    record.delay("now")
    assert drain(including_scheduled=True) == 4
    assert words(site, "start") == ["now", "first", "second", "last"]


def test_what_tasks_enqueue_is_run_too(calls: str, made: Made) -> None:
    seen = []

    @made
    def count_down(number: int) -> None:
        seen.append((number, current_task.parent_id))
        if number:
            count_down.delay(number - 1)

    first = count_down.delay(2)
    assert drain() == 3
    assert first.id
    assert [number for number, _parent in seen] == [2, 1, 0]
    assert seen[0][1] is None and seen[1][1] == first.id


def test_no_end(calls: str, made: Made) -> None:
    @made
    def again() -> None:
        again.delay()

    again.delay()
    with pytest.raises(RuntimeError, match="has run 20 tasks, and there are more"):
        drain(at_most=20)


def test_as_many_tasks_as_drain_may_run_are_not_too_many(site: Site, calls: str, made: Made) -> None:
    @made
    def again() -> None:
        raise Retry(countdown=0)

    record.delay("x")
    record.apply_async(("later",), countdown=60)
    assert drain(at_most=1) == 1
    with pytest.raises(RuntimeError, match="has run 0 tasks"):
        drain(including_scheduled=True, at_most=0)
    again.delay()
    with pytest.raises(RuntimeError, match="has run 2 tasks"):
        drain(at_most=2)


def test_the_first_failure_is_raised(site: Site, calls: str) -> None:
    record.delay("before")
    failed = fail.delay("x")
    record.delay("after")
    with pytest.raises(ValueError, match="no luck with x") as raised:
        drain()
    assert raised.traceback[-1].name == "fail", "with where it came to pass"
    assert failed.status == "failed"
    row = failed.refresh()
    assert row and "ValueError: no luck with x" in row.error and row.attempts == 1
    assert drain() == 1 and words(site, "end") == ["before", "after"]


def test_failures_that_are_not_raised(site: Site, calls: str, caplog: pytest.LogCaptureFixture) -> None:
    results = fail.delay("x"), fail.delay("y")
    assert drain(raise_failures=False) == 2
    assert [result.status for result in results] == ["failed", "failed"]
    assert not caplog.records, "a test that expects a failure need not read of it"


def test_an_unknown_task(site: Site, calls: str) -> None:
    stranger = record.call(("x",), {})._replace(task_name="shop.tasks.gone")
    if calls == "collect":
        memory_engine.MEMORY.enqueue(stranger)
    else:
        Task.objects.create(task_name=stranger.task_name, args=["x"])
    with pytest.raises(errors.UnknownTask, match=r"Unknown task 'shop\.tasks\.gone'"):
        drain()


def test_retries(calls: str, made: Made) -> None:
    attempts: list[int] = []

    @task(name="tests.unlucky", autoretry_for=(OSError,))
    def unlucky() -> None:
        attempts.append(current_task.attempt)
        if len(attempts) < 3:
            raise OSError("not yet")

    result = unlucky.delay()
    assert drain() == 1, "a retry waits for its time"
    assert result.status == "scheduled"
    row = result.refresh()
    assert row and row.run_after and row.run_after > datetime.now(UTC) + timedelta(seconds=100)
    assert drain(including_scheduled=True) == 2
    assert attempts == [1, 2, 3] and result.status is None


def test_finished_steps_are_kept_for_the_retry(calls: str, made: Made) -> None:
    ran: list[Any] = []

    def charge(order: int) -> list[int]:
        ran.append(f"charge-{order}")
        return [order]

    @made
    def in_steps(order: int) -> None:
        ran.append(step("charge", charge, order))
        cursor.set(cursor.get(0) + 1)
        if current_task.attempt == 1:
            raise Retry(countdown=60)
        ran.append(cursor.get())

    in_steps.delay(1)
    in_steps.delay(2)
    assert drain() == 2
    first = ["charge-1", [1], "charge-2", [2]]
    assert ran == first
    assert drain(including_scheduled=True) == 2 and not enqueued()
    assert ran == [*first, [1], 2, [2], 2]


def test_steps_of_an_asynchronous_task_and_after_a_failure(calls: str, made: Made) -> None:
    ran: list[str] = []

    async def charge() -> str:
        ran.append("charge")
        return "paid"

    @made
    async def in_steps() -> None:
        assert await astep("charge", charge) == "paid"
        await cursor.aset([1])
        with pytest.raises(errors.UnserializableResult):
            await astep("broken", lambda: {1})
        raise ValueError(await cursor.aget())

    in_steps.delay()
    assert drain(raise_failures=False) == 1
    in_steps.delay()
    with pytest.raises(ValueError, match="1"):
        drain()
    assert ran == ["charge", "charge"], "a new call is a new task"


def test_no_retries_left(calls: str, made: Made) -> None:
    @made
    def ask_again() -> None:
        raise Retry(exc=KeyError("never"), countdown=1, max_retries=2)

    ask_again.delay()
    with pytest.raises(KeyError, match="never"):
        drain(including_scheduled=True)
    assert drain() == 0


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_is_no_exception(calls: str, made: Made, kind: type[BaseException]) -> None:
    @made
    def leave() -> None:
        raise kind

    result = leave.delay()
    with pytest.raises(kind):
        drain(raise_failures=kind is SystemExit)
    assert result.status == "failed"


def test_unique_calls(calls: str, made: Made) -> None:
    results: list[AsyncResult] = []

    @task(name="tests.once", unique="running")
    def once(key: str) -> None:
        results.append(once.delay(key))

    first = once.delay("x")
    assert once.delay(key="x") == first != once.delay("y")
    assert drain() == 2
    assert results[0] == first, "it is alone while it runs"
    assert once.delay("x") != first


def test_identical_calls_in_conflict(calls: str, made: Made) -> None:
    seen: list[tuple[str, int]] = []

    @task(name="tests.latest", unique=lambda key, _: key, debounce=600)
    def later_on(key: str, value: int) -> None:
        seen.append((key, value))

    @task(name="tests.hourly", unique_for=timedelta(hours=1))
    def once(key: str) -> None:
        seen.append((key, 0))

    @task(name="tests.alone", unique=True, on_conflict="raise")
    def alone(key: str) -> None: ...

    first = later_on.delay("x", 1)
    assert later_on.delay("x", 2) == first and first.status == "scheduled"
    second = once.delay("y")
    alone.delay("z")
    with pytest.raises(AlreadyEnqueued):
        alone.delay_many([("v",), ("z",)])
    assert drain() == 2 and once.delay("y") == second
    assert drain(including_scheduled=True) == 1 and seen == [("y", 0), ("x", 2)]
    third = once.delay("w")
    assert third.revoke() and once.delay("w") != third


def test_expired_calls_are_not_run(site: Site, calls: str) -> None:
    result = record.apply_async(("x",), expires=-1)
    assert drain() == 0 and result.status is None


def test_lanes_do_not_hold(calls: str, made: Made) -> None:
    """Nothing else runs, and a test must not wait for a rate."""
    seen: list[int] = []

    @task(name="tests.limited", max_concurrency=1, rate_limit="1/h")
    def limited(number: int) -> None:
        seen.append(number)

    limited.delay_many((number,) for number in range(3))
    assert drain() == 3 and seen == [0, 1, 2]


def test_inside_a_task(calls: str, made: Made) -> None:
    seen: list[Any] = []

    @made
    def look(key: str) -> None:
        seen.append((current_task.id, current_task.name, current_task.queue, current_task.attempt))
        current_task.progress(1, 2)

    result = look.apply_async(("x",), queue="mail")
    assert drain() == 1
    assert seen == [(result.id, look.name, "mail", 1)]
    assert not current_task, "outside there is none"


def test_progress_is_on_the_row(site: Site, made: Made) -> None:
    @made
    def halfway() -> int:
        current_task.progress(1, 2, note="half")
        return 42

    result = halfway.apply_async(result_ttl=60)
    drain()
    row = result.refresh()
    assert row and (row.progress_done, row.progress_note, json.loads(row.result)) == (1, "half", 42)


def test_drain_as_part_of_a_transaction(site: Site) -> None:
    """As in a TestCase that declares the queue's database."""
    with pytest.raises(ZeroDivisionError), transaction.atomic(using="snappea"):
        record.delay("x")
        assert drain() == 1
        record.delay("y")
        raise ZeroDivisionError
    assert site.counts() == {} and words(site, "end") == ["x"]


def test_eager_comes_first(memory: None, site: Site) -> None:
    with override_snappea(TASK_ALWAYS_EAGER=True):
        assert record.delay("x").status == "successful"
    assert words(site, "end") == ["x"] and enqueued() == []


def test_other_keys_stay(site: Site, settings: Any) -> None:
    before = dict(settings.SNAPPEA)
    with override_snappea(NUM_WORKERS=3):
        assert before | {"NUM_WORKERS": 3} == settings.SNAPPEA
    assert before == settings.SNAPPEA


def test_tasks_of_django_are_collected_and_drained_as_well(calls: str) -> None:
    told: list[Any] = []

    def receiver(task_result: Any, **kwargs: Any) -> None:
        told.append(task_result.status)

    task_finished.connect(receiver)
    try:
        result, failing = djangotasks.add.enqueue(1, b=2), djangotasks.fail.enqueue("no luck")
        assert [call.args for call in enqueued()] == [[1], ["no luck"]]
        assert result.status == TaskResultStatus.READY
        with pytest.raises(ValueError, match="no luck"):
            drain()
    finally:
        task_finished.disconnect(receiver)
    result.refresh()
    failing.refresh()
    assert result.return_value == 3
    assert failing.errors[0].exception_class is ValueError
    assert told == [TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED]


# mocks


def test_which_mock_sees_what(site: Site) -> None:
    with mock.patch.object(record, "delay") as delay:
        record.delay("plain")
        asyncio.run(record.adelay("async"))
        with transaction.atomic():
            record.delay_on_commit("x", using="default")
            assert delay.call_count == 2
        record.delay_on_commit(object())  # type: ignore[call-overload]  # what would be refused is for the mock to look at
        record.apply_async(("not seen",))
    assert [call.args[0] for call in delay.call_args_list[:3]] == ["plain", "async", "x"]
    assert delay.call_args_list[2].kwargs == {} and delay.call_count == 4
    with mock.patch.object(TaskFunction, "delay", autospec=True) as of_all:
        record.delay_on_commit("y")
    of_all.assert_called_once_with(record, "y")
    with mock.patch.object(record, "apply_async") as apply_async:
        record.s("x").set(queue="mail").delay()
        record.delay("not seen")
    apply_async.assert_called_once_with(("x",), {}, queue="mail")
    assert Task.objects.count() == 2
    record.delay_on_commit("as before")
    assert Task.objects.count() == 3
