"""`step()`, `astep()` and `cursor` in a task, outside one, and what they refuse."""

import json
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction
from django.db.transaction import TransactionManagementError

from snappea import astep, cursor, step
from snappea.errors import ClaimLost, ResultTooLarge, UnreadableArguments, UnserializableResult
from snappea.management.console import HIDDEN, as_data
from snappea.models import Task
from snappea.queue import operations, store
from snappea.queue.clock import now
from snappea.queue.database import connect, raw
from snappea.queue.records import Claim
from snappea.tasks.steps import MAX_KEPT, MAX_NAME
from snappea.workers.execute import execute
from snappea.workers.limits import Handle
from tests.admin.test_task_page import page_of, text_of
from tests.site import Made, Site

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def act(value: Any) -> Any:
    calls.append(value)
    return value


def claim() -> Claim:
    found = store.claim_any(raw(connect()), now())
    assert found
    return found


def error_of(made: Made, body: Any, **columns: Any) -> str:
    """Run a task once in this thread, and return its error."""
    task = made(body)
    task.delay()
    Task.objects.update(**columns)
    return execute(claim(), Handle(), task).error


def test_a_finished_step_returns_what_it_returned(site: Site, made: Made) -> None:
    seen = []

    @made
    def twice() -> None:
        seen.append((step("a", act, (1, "é")), step("b", act, value=None), cursor.get(7)))
        cursor.set({"at": 8})

    twice.delay()
    first = claim()
    assert not execute(first, Handle(), twice).error
    assert json.loads(Task.objects.get().steps) == {"a": [1, "é"], "b": None, "": {"at": 8}}
    raw(connect()).execute("UPDATE snappea_task SET status = 'ready'")
    assert not execute(claim(), Handle(), twice).error
    assert seen == [([1, "é"], None, 7), ([1, "é"], None, {"at": 8})]
    assert calls == [(1, "é"), None]


def test_an_attempt_that_lost_the_task_writes_nothing(site: Site, made: Made) -> None:
    def body() -> None:
        def lose() -> None:
            raw(connect()).execute("UPDATE snappea_task SET claims = claims + 1")

        step("lose", lose)

    assert ClaimLost.__name__ in error_of(made, body)
    assert Task.objects.get().steps == ""


def test_a_new_attempt_of_a_lost_task_runs_no_step(site: Site, made: Made) -> None:
    task = made(lambda: step("a", act, 1))
    task.delay()
    lost = claim()
    raw(connect()).execute("UPDATE snappea_task SET claims = claims + 1")
    assert ClaimLost.__name__ in execute(lost, Handle(), task).error
    assert not calls


def test_a_step_inside_atomic_is_refused_before_it_runs(site: Site, made: Made) -> None:
    def body() -> None:
        with transaction.atomic(using="snappea"):
            step("a", act, 1)

    assert TransactionManagementError.__name__ in error_of(made, body)
    assert not calls


def test_the_cursor_inside_atomic_is_refused(site: Site, made: Made) -> None:
    def body() -> None:
        with transaction.atomic(using="snappea"):
            cursor.set(1)

    assert TransactionManagementError.__name__ in error_of(made, body)


def test_names(site: Site, made: Made) -> None:
    def body() -> None:
        for name in ("", "x" * (MAX_NAME + 1)):
            with pytest.raises(ValueError, match="1 to 200 characters"):
                step(name, act, 1)
        with pytest.raises(TypeError, match="must be a string, not int"):
            step(5, act, 1)  # type: ignore[arg-type]
        with pytest.raises(ZeroDivisionError):
            step("a", lambda: 1 / 0)
        step("a", act, 1)  # another try
        with pytest.raises(ValueError, match=r"step\('a'\) began twice"):
            step("a", act, 1)

    assert not error_of(made, body)
    assert calls == [1]


def test_results_are_json_of_limited_size(site: Site, made: Made) -> None:
    def body() -> None:
        with pytest.raises(UnserializableResult, match=r"step\('a'\): the result is a set"):
            step("a", act, {1})
        with pytest.raises(UnserializableResult, match=r"cursor.set\(\): the value is a bytes"):
            cursor.set(b"x")
        with pytest.raises(ResultTooLarge, match="1,000,000 characters"):
            step("b", act, "x" * MAX_KEPT)
        with pytest.raises(TypeError, match="coroutine"):
            step("c", acted, 1)  # type: ignore[unused-coroutine]  # refused for that
        step("d", act, "x")

    assert not error_of(made, body)
    assert json.loads(Task.objects.get().steps) == {"d": "x"}


async def acted(value: Any) -> Any:
    calls.append(value)
    return value


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": NaN}'])
def test_steps_that_are_no_json_fail_the_task(site: Site, made: Made, text: str) -> None:
    error = error_of(made, lambda: step("a", act, 1), steps=text)
    assert UnreadableArguments.__name__ in error, error
    assert not calls


def test_asynchronous_tasks(site: Site, made: Made) -> None:
    @made
    async def body() -> None:
        assert await astep("a", acted, (1,)) == [1]
        assert await astep("b", act, 2) == 2
        assert await cursor.aget() is None
        await cursor.aset(3)
        assert await cursor.aget() == 3
        with pytest.raises(SynchronousOnlyOperation, match=r"await snappea.astep"):
            step("c", act, 1)

    body.delay()
    assert not execute(claim(), Handle(), body).error
    assert json.loads(Task.objects.get().steps) == {"a": [1], "b": 2, "": 3}


def test_outside_a_task_nothing_is_kept(site: Site, made: Made, settings: Any) -> None:
    assert step("a", act, 1) == 1
    assert step("a", act, 2) == 2
    assert async_to_sync(astep)("a", acted, 3) == 3
    cursor.set(1)
    assert cursor.get(5) == 5
    settings.SNAPPEA = {**settings.SNAPPEA, "TASK_ALWAYS_EAGER": True}

    @made
    def body() -> Any:
        cursor.set(4)
        return step("a", act, 4), cursor.get()

    assert body.delay().get() == ([4][0], 4)
    assert calls == [1, 2, 3, 4]


def test_a_requeue_keeps_steps_unless_the_task_succeeded(site: Site) -> None:
    for status in ("failed", "interrupted", "cancelled", "successful"):
        row = Task.objects.create(task_name="x", status=status, steps='{"a":1}', interruptions_forgiven=2)
        operations.requeue(Task.objects.filter(pk=row.pk))
        row.refresh_from_db()
        assert row.steps == ("" if status == "successful" else '{"a":1}')
        assert (row.interruptions, row.interruptions_forgiven) == (0, 0)


def test_the_admin_shows_steps_unless_the_task_is_sensitive(site: Site) -> None:
    steps = json.dumps({"<b>": {"id": 4711}, "": 4712})
    row = Task.objects.create(task_name="x", status="failed", steps=steps)
    assert "Finished steps &lt;b&gt; { &quot;id&quot;: 4711 } Cursor 4712" in text_of(row)
    many = Task.objects.create(task_name="x", steps=json.dumps({f"s{n}": n for n in range(60)}))
    assert "s59" in page_of(many) and "s9 9" not in text_of(many) and "and 10 more" in text_of(many)
    broken = Task.objects.create(task_name="x", steps="{")
    assert "Finished steps" in text_of(broken)
    secret = Task.objects.create(task_name="x", is_sensitive=True, steps=steps)
    assert "4711" not in page_of(secret) and "4712" not in page_of(secret)
    assert as_data(secret)["steps"] == HIDDEN
