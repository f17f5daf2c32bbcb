"""Names from Celery and django-taskq: to migrate a module, change its import."""

import inspect
import json
import time
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

import snappea
from snappea import AsyncResult, Retry, Signature, shared_task, task
from snappea.errors import NoCurrentTask, TaskDefinitionError, UnserializableArgument
from snappea.models import Task
from snappea.tasks.function import registry
from tests.playground import for_taskq
from tests.playground.lifecycle import add
from tests.playground.tasks import echo, record
from tests.site import DEADLINE, Site, wait_until


def test_shared_task_is_task() -> None:
    assert shared_task is task and {"shared_task", "Retry", "AsyncResult", "Signature"} <= set(
        snappea.__all__
    )


def written() -> list[tuple[Any, Any]]:
    """Return the arguments of all rows."""
    rows = Task.objects.order_by("pk").values_list("args", "kwargs")
    return [(json.loads(args), json.loads(kwargs)) for args, kwargs in rows]


# signatures


def test_a_signature_is_a_call_that_was_not_made_yet(site: Site) -> None:
    signature = echo.s(1, two=2)
    assert isinstance(signature, Signature) and Task.objects.count() == 0
    result = signature.delay()
    assert isinstance(result, AsyncResult)
    assert written() == [([1], {"two": 2})]


def test_a_signature_may_be_made_partial_and_completed(site: Site) -> None:
    echo.s(2, b=2, c=2).delay(1, b=1)
    echo.s(2).apply_async((0, 1), {"x": "y"})
    assert written() == [([1, 2], {"b": 1, "c": 2}), ([0, 1, 2], {"x": "y"})]


def test_set_merges_and_apply_async_has_the_last_word(site: Site) -> None:
    signature = record.s("x").set(queue="mail", priority=1).set(priority=2, countdown=60)
    assert signature.options == {"queue": "mail", "priority": 2, "countdown": 60}
    before = timezone.now()
    first = signature.apply_async(priority=3).refresh()
    second = signature.apply_async(queue="reports", countdown=None).refresh()
    assert first and second and first.run_after
    assert (first.queue, first.priority, first.status) == ("mail", 3, "scheduled")
    assert first.run_after - before >= timedelta(seconds=59)
    assert (second.queue, second.priority, second.status) == ("reports", 2, "ready")
    assert signature.options == {"queue": "mail", "priority": 2, "countdown": 60}


def test_a_signature_checks_its_arguments_when_it_is_enqueued(site: Site) -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        record.s().delay()
    with pytest.raises(UnserializableArgument):
        record.s(object()).delay()
    with pytest.raises(TypeError, match="routing_key"):
        record.s("x").set(routing_key="y").delay()
    assert Task.objects.count() == 0


# apply_async


def test_what_means_nothing_here_is_accepted(site: Site) -> None:
    record.apply_async(("x",), ignore_result=True, add_to_parent=True)
    record.s("x").set(ignore_result=False).apply_async(add_to_parent=False)
    assert site.counts() == {"ready": 2}
    assert set(Task.objects.values_list("result_ttl", flat=True)) == {None}


def test_ignore_result_does_not_take_a_result_away(site: Site) -> None:
    """The task's own result_ttl decides whether it is kept."""
    site.foreman()
    assert add.apply_async((1, 2), ignore_result=True).get(timeout=DEADLINE) == 3


def test_args_and_kwargs_as_they_are_passed_around(site: Site) -> None:
    for args, kwargs in ((None, {"key": "x"}), ([], {"key": "x"}), (["x"], None), (("x",), {})):
        record.apply_async(args, kwargs)  # type: ignore[arg-type]
    assert written() == [([], {"key": "x"})] * 2 + [(["x"], {})] * 2


def test_every_option_that_django_taskq_has_there_is_here() -> None:
    parameters = inspect.signature(record.apply_async).parameters
    theirs = ("args", "kwargs", "countdown", "eta", "expires", "queue", "ignore_result", "add_to_parent")
    assert set(theirs) <= set(parameters)


# retry


def test_retry_kwargs(site: Site) -> None:
    options = for_taskq.fragile.options
    assert (options.max_retries, options.default_retry_delay) == (3, 0.01)
    assert for_taskq.backing_off.options.max_retries == 3
    assert for_taskq.backing_off.options.default_retry_delay == 180


@pytest.mark.parametrize("wrong", [{"max_retries": -1}, {"countdown": "soon"}])
def test_retry_kwargs_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(TaskDefinitionError):
        task(name="tests.never", retry_kwargs=wrong)(test_shared_task_is_task)
    assert "tests.never" not in registry


def test_retry_outside_a_task_is_an_error() -> None:
    with pytest.raises(NoCurrentTask):
        for_taskq.by_hand.retry(countdown=1)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"countdown": value} for value in ("60", True, float("nan"), date(2100, 1, 1))),
        *({"eta": value} for value in ("2100-01-01", 60, date(2100, 1, 1), datetime(2100, 1, 1))),
        *({"max_retries": value} for value in ("3", True, 1.5, -1)),
    ],
    ids=str,
)
def test_values_of_a_retry_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^Retry: "):
        Retry(**wrong)


@pytest.mark.parametrize("wrong", ["5", True, float("nan"), [], date(2100, 1, 1)])
def test_timeouts_that_make_no_sense(site: Site, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout="):
        add.delay(1, 2).get(timeout=wrong)


def test_retry_raises_with_everything_on_it(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"TASK_ALWAYS_EAGER": True}
    with pytest.raises(Retry) as raised:
        for_taskq.by_hand.delay("x", limit=7)
    assert isinstance(raised.value.exc, KeyError)
    assert (raised.value.countdown, raised.value.max_retries) == (0.01, 7)


# a module that was written for django-taskq


def test_a_module_for_django_taskq_runs(site: Site) -> None:
    foreman = site.foreman()
    before = time.monotonic()
    for_taskq.enqueue_all.delay()
    expected = [
        *(["delay", "2"], ["args", "1"], ["args-and-kwargs", "3"], ["kwargs", "4"]),
        *(["signature", "1"], ["signature-in-a-queue", "1"]),
        *(["countdown"], ["eta"], ["expires"], ["queue"], ["mail"]),
    ]
    wait_until(lambda: len(site.ledger.lines()) >= len(expected))
    wait_until(lambda: site.counts() == {}, f"{site.counts()}")  # the expired one goes as well
    assert sorted(site.ledger.lines()) == sorted(["end", *words] for words in expected)
    for word in ("countdown", "eta"):
        assert site.ledger.moments("end", word)[0] - before >= 0.29
    assert "Failed" not in foreman.output() and "expired" not in site.ledger.keys("end")


def test_retries_of_a_module_for_django_taskq(site: Site) -> None:
    site.foreman()
    for_taskq.fragile.delay("third-time", 3)
    for_taskq.fragile.delay("never", 99)
    for_taskq.backing_off.delay("once")
    for_taskq.backing_off.delay("hopeless", hopeless=True)
    for_taskq.by_hand.delay("by-hand", 2)
    for_taskq.raising.delay("raising")
    wait_until(lambda: site.counts() == {"failed": 3}, f"{site.counts()}")
    assert site.ledger.keys("start") == {
        "third-time": 3,
        "never": 4,
        "once": 2,
        "hopeless": 1,
        "by-hand": 3,
        "raising": 2,
    }
    assert set(site.ledger.keys("end")) == {"third-time", "once", "raising"}
    by_hand = Task.objects.get(task_name=for_taskq.by_hand.name)
    assert "KeyError: 'by-hand'" in by_hand.error
    assert [each["error"] for each in by_hand.attempt_errors()] == ["KeyError: 'by-hand'"] * 3


def test_only_the_import_line_is_ours() -> None:
    source = inspect.getsource(for_taskq)
    assert source.count("snappea") == source.count("from snappea import Retry, shared_task\n") == 1
