"""@task and its calls: delay, delay_on_commit, adelay, delay_many, and their errors."""

import asyncio
import importlib
import inspect
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction

import tests.playground.tasks
from snappea import AsyncResult, SnappeaError, TaskFunction, schedules, task
from snappea.errors import (
    ArgumentsTooLarge,
    EnqueueError,
    TaskDefinitionError,
    UnknownTask,
    UnserializableArgument,
)
from snappea.models import Task
from snappea.queue import bulk, operations, store
from snappea.tasks.discovery import resolve
from snappea.tasks.function import registry
from tests.playground.tasks import echo, nap, nap_late, nothing, record, record_async
from tests.site import ROOT, Made, Site


def calls() -> list[tuple[Any, Any]]:
    """Return the arguments of the rows."""
    rows = Task.objects.order_by("id").values_list("args", "kwargs")
    return [(json.loads(args), json.loads(kwargs)) for args, kwargs in rows]


# what @task makes


def test_a_task_is_still_its_function() -> None:
    assert isinstance(nap, TaskFunction)
    assert nap.name == "tests.playground.tasks.nap" and repr(nap) == "<task tests.playground.tasks.nap>"
    assert nap.__name__ == "nap" and nap.__doc__ == "Sleep." and nap.__module__ == "tests.playground.tasks"
    assert list(inspect.signature(nap).parameters) == ["key", "seconds"]
    assert resolve(nap.name) is nap
    assert nothing() is None


def test_options_stand_on_the_row(site: Site) -> None:
    @task(name="tests.with_options", queue="mail", priority=-7, acks_late=True)
    def with_options() -> None: ...

    try:
        with_options.delay()
        row = Task.objects.get()
        assert (row.task_name, row.queue, row.priority, row.acks_late) == (
            "tests.with_options",
            "mail",
            -7,
            True,
        )
    finally:
        del registry["tests.with_options"]


def test_two_tasks_of_one_name() -> None:
    def one() -> None: ...
    def other() -> None: ...

    task(name="tests.taken")(one)
    try:
        with pytest.raises(
            TaskDefinitionError, match=r"Two tasks are named 'tests.taken': at .*:\d+ and at .*:\d+"
        ):
            task(name="tests.taken")(other)
        assert registry["tests.taken"].function is one
    finally:
        del registry["tests.taken"]


def test_a_module_may_be_reloaded() -> None:
    before = dict(registry)
    try:
        importlib.reload(tests.playground.tasks)
    finally:
        registry.update(before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "x" * 256}, "a string of 1 to 255 characters"),
        ({"queue": ""}, "queue='' must be"),
        ({"queue": 3}, "queue=3 must be"),
        ({"priority": 101}, "priority=101 must be from -100 to 100"),
        ({"priority": "high"}, "priority='high'"),
        ({"priority": True}, "priority=True"),
        ({"acks_late": 1}, "acks_late=1 must be True or False"),
    ],
)
def test_nonsense_options_are_errors_at_import(options: dict[str, Any], words: str) -> None:
    before = dict(registry)
    with pytest.raises(TaskDefinitionError, match=words):
        task(**{"name": "tests.nonsense", **options})(lambda: None)
    assert registry == before


def test_an_unknown_option_is_an_error_at_import() -> None:
    with pytest.raises(TaskDefinitionError, match="no option 'priorty'; did you mean 'priority'"):
        task(name="tests.x", priorty=3)(lambda: None)  # type: ignore[call-overload]


def test_functions_that_the_foreman_could_not_find() -> None:
    def nested() -> None: ...

    with pytest.raises(TaskDefinitionError, match="not at the top level of its module"):
        task(nested)
    with pytest.raises(TaskDefinitionError, match="@task takes a function, not"):
        task(print)
    with pytest.raises(TaskDefinitionError, match="@task takes a function, not"):
        task(nap)  # twice decorated
    assert all("nested" not in name for name in registry)


def test_a_task_in_a_script(site: Site) -> None:
    code = "import django; django.setup()\nfrom snappea import task\n@task\ndef here(): ...\n"
    done = subprocess.run(
        [sys.executable, "-c", code], env=site.environment(), capture_output=True, text=True
    )
    assert "defined in a script, so the Foreman cannot find it" in done.stderr


def test_the_package_can_be_imported_before_any_model(site: Site) -> None:
    code = "import sys, snappea; assert 'snappea.models' not in sys.modules; print(snappea.__version__)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec("from snappea import nonsense")


def test_names_are_resolved_by_the_registry_alone() -> None:
    for name in (
        "os.system",
        "tests.planted.run",
        "tests.playground.ledger.note",
        "",
        ".",
        "tests.playground.no.x",
    ):
        with pytest.raises(UnknownTask, match="Unknown task"):
            resolve(name)
    assert "tests.planted" not in sys.modules


# delay


def test_delay_writes_the_call(site: Site) -> None:
    result = nap.delay("x", seconds=1.5)
    assert result == AsyncResult(1) and Task.objects.get().pk == 1
    nap_late.delay("y", 2)
    assert calls() == [(["x"], {"seconds": 1.5}), (["y", 2], {})]
    assert list(Task.objects.order_by("id").values_list("acks_late", flat=True)) == [False, True]


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing a required argument: 'key'"),
        (("x", 1, 2), {}, "too many positional arguments"),
        (("x",), {"key": "y", "seconds": 1}, "multiple values for argument 'key'"),
        (("x", 1), {"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
    ],
)
def test_a_call_that_does_not_fit_the_function(site: Site, args: Any, kwargs: Any, words: str) -> None:
    for call in (nap.delay, nap.delay_on_commit):
        with pytest.raises(TypeError, match=f"tests.playground.tasks.nap.*{words}"):
            call(*args, **kwargs)
    assert Task.objects.count() == 0


def test_a_call_that_is_not_json(site: Site) -> None:
    for call in (echo.delay, echo.delay_on_commit, lambda value: echo.delay_many([(1,), (value,)])):
        with pytest.raises(UnserializableArgument, match="pass sorted"):
            call({1, 2})
    assert Task.objects.count() == 0


def test_a_call_that_is_too_large(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"MAX_ARGUMENT_BYTES": 100}
    echo.delay("é" * 47)  # two bytes each, quotes, brackets, and {}
    with pytest.raises(ArgumentsTooLarge, match=r"take 102 bytes as JSON; MAX_ARGUMENT_BYTES is 100"):
        echo.delay("é" * 48)
    assert isinstance(ArgumentsTooLarge(), (ValueError, SnappeaError))
    assert Task.objects.count() == 1


def test_ten_megabytes_are_too_large_by_default(site: Site) -> None:
    with pytest.raises(ArgumentsTooLarge, match="Store them and pass the primary key"):
        echo.delay("x" * 10_000_000)


def test_what_blocks_is_refused_on_an_event_loop_with_the_place_and_the_cure(
    site: Site, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    result, tasks = AsyncResult(1), Task.objects.all()
    refused: dict[str, tuple[Callable[[], object], str]] = {
        "delay": (lambda: record.delay("x"), "await record.adelay(...)"),
        "delay_of_signature": (lambda: record.s("x").delay(), "await record.adelay(...)"),
        "apply_async": (lambda: record.apply_async(("x",)), "await sync_to_async(record.apply_async)(...)"),
        "delay_many": (lambda: record.delay_many([("x",)]), "sync_to_async(record.delay_many)(...)"),
        "delay_on_commit": (lambda: record.delay_on_commit("x"), "sync_to_async(record.delay_on_commit)"),
        "broadcast": (lambda: record.broadcast("x"), "sync_to_async(record.broadcast)(...)"),
        "get": (lambda: result.get(timeout=5), "await sync_to_async(result.get)(...)"),
        "status": (lambda: result.status, "await sync_to_async(lambda: result.status)()"),
        "refresh": (result.refresh, "sync_to_async(result.refresh)(...)"),
        "revoke": (result.revoke, "sync_to_async(result.revoke)(...)"),
        "cancel": (lambda: operations.cancel(tasks), "sync_to_async(queue.cancel)(...)"),
        "requeue": (lambda: operations.requeue(tasks), "sync_to_async(queue.requeue)(...)"),
        "paused": (operations.paused, "sync_to_async(queue.paused)(...)"),
        "depth": (store.depth, "sync_to_async(queue.depth)(...)"),
        "pause": (lambda: operations.pause("mail"), "sync_to_async(queue.pause)(...)"),
        "fire": (lambda: schedules.fire("x"), "sync_to_async(schedules.fire)(...)"),
    }

    async def call() -> None:
        for name, (what, cure) in refused.items():
            with pytest.raises(SynchronousOnlyOperation) as raised:
                what()
            said = str(raised.value)
            assert cure in said and f"{__file__}:" in said, name
            assert ("tests.playground.tasks.record: " in said) == ("record" in cure)

    asyncio.run(call())
    assert Task.objects.count() == 0  # and now the connection is open
    asyncio.run(call())
    settings.SNAPPEA = site.settings | {"TASK_ALWAYS_EAGER": True}
    asyncio.run(call())
    settings.SNAPPEA = site.settings
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")

    async def enqueue() -> list[AsyncResult]:
        return [record.delay("allowed"), await record.adelay("x")]

    assert [each.id for each in asyncio.run(enqueue())] == [1, 2]


def test_delay_many(site: Site) -> None:
    results = record.delay_many((key,) for key in "abc")
    assert [result.id for result in results] == [1, 2, 3]
    assert calls() == [(["a"], {}), (["b"], {}), (["c"], {})]
    assert record.delay_many([]) == []


def test_delay_many_in_several_statements(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement writes a limited amount of text; the calls keep their order and their text."""
    monkeypatch.setattr(bulk, "TEXT_AT_ONCE", 100)
    keys = ['"', "\\", "\n", "\0", "\x1f", "\u2028", "ä", "𝄞", "x" * 1000, *map(str, range(100))]
    results = record.delay_many((key,) for key in keys)
    assert [result.id for result in results] == list(range(1, len(keys) + 1))
    assert calls() == [([key], {}) for key in keys]


def test_calls_that_differ_in_more_than_their_arguments_keep_their_order(site: Site) -> None:
    mixed = [task.call((key,), {}) for key in "ab" for task in (record, echo, echo)]
    assert store.enqueue_many(mixed) == [(number, True) for number in range(1, 7)]
    rows = Task.objects.order_by("pk").values_list("task_name", "args")
    assert list(rows) == [(call.task_name, call.args) for call in mixed]


def test_delay_many_is_whole_or_not_at_all(site: Site) -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        record.delay_many([("a",), ()])
    with pytest.raises(TypeError, match="takes tuples of positional arguments, not 'ab'"):
        record.delay_many(["ab"])  # type: ignore[list-item]
    assert Task.objects.count() == 0


@pytest.mark.parametrize("last", [("x" * 80,), ({1: 2},), (b"",), (), ("\udc80",)])
def test_delay_many_checks_each_call(site: Site, settings: Any, last: tuple[Any, ...]) -> None:
    settings.SNAPPEA = site.settings | {"MAX_ARGUMENT_BYTES": 80}
    with pytest.raises((TypeError, ArgumentsTooLarge)) as of_one:
        record.delay(*last)
    with pytest.raises(of_one.type, match=re.escape(str(of_one.value))):
        record.delay_many([("a",), last])
    assert Task.objects.count() == 0
    record.delay_many([("a",), ("ä" * 30,), ({"b": [1.5]},)])
    assert calls() == [(["a"], {}), (["ä" * 30], {}), ([{"b": [1.5]}], {})]


# delay_on_commit


def test_delay_on_commit_waits_for_the_commit(site: Site) -> None:
    with transaction.atomic():
        record.delay_on_commit("x")
        assert Task.objects.count() == 0
    assert calls() == [(["x"], {})]


def test_delay_on_commit_after_a_rollback_leaves_nothing(site: Site) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        record.delay_on_commit("x")
        record.delay("y")
        _ = 1 / 0
    assert calls() == [(["y"], {})], "delay() does not wait, and is not rolled back with another database"


def test_delay_on_commit_enqueues_at_once_outside_a_transaction(site: Site) -> None:
    record.delay_on_commit(key="x")
    assert calls() == [([], {"key": "x"})]


def test_delay_on_commit_of_another_database(site: Site) -> None:
    with transaction.atomic(using="snappea"):
        record.delay_on_commit("at once")
        record.delay_on_commit("later", using="snappea")
        assert calls() == [(["at once"], {})]
    assert calls() == [(["at once"], {}), (["later"], {})]


def test_using_may_be_an_argument_of_the_task(site: Site) -> None:
    @task(name="tests.using")
    def with_using(using: str) -> None: ...

    try:
        with_using.delay_on_commit(using="a hammer")
        assert calls() == [([], {"using": "a hammer"})]
    finally:
        del registry["tests.using"]


def test_the_arguments_are_those_of_the_call_and_not_of_the_commit(site: Site) -> None:
    basket = ["apple"]
    with transaction.atomic():
        echo.delay_on_commit(basket)
        basket.append("pear")
    assert calls() == [([["apple"]], {})]


def test_a_refusal_after_the_commit_is_raised(site: Site) -> None:
    site.sql("DROP TABLE snappea_task")
    with pytest.raises(EnqueueError), transaction.atomic():
        record.delay_on_commit("x")


# TASK_ALWAYS_EAGER


def test_eager_tasks_run_at_once_and_write_nothing(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {"TASK_ALWAYS_EAGER": True}
    assert record.delay("x") == AsyncResult(None)
    record_async.delay("async")
    record.delay_many([("a",), ("b",)])
    record.delay_on_commit("c")
    echo.delay((1, 2))
    assert list(site.ledger.keys("end")) == ["x", "async", "a", "b", "c"]
    assert site.ledger.count("echo", "(([1,2],),{})"), "it gets what a worker would get: lists"
    assert Task.objects.count() == 0


def test_eager_tasks_still_check_their_arguments_and_raise(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {"TASK_ALWAYS_EAGER": True}
    with pytest.raises(UnserializableArgument):
        echo.delay(b"x")
    with pytest.raises(TypeError, match="missing a required argument"):
        record.delay()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="no luck"):
        tests.playground.tasks.fail.delay("x")
    assert site.ledger.count("end", "x") == 0


# the hint while developing


def test_delay_in_an_open_transaction_is_warned_of_once_per_call_site(
    site: Site, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DEBUG = True
    with transaction.atomic():
        for _ in range(3):
            record.delay("here")
        record.delay("there")
        record.delay_many([("many",)])
    record.delay("outside")
    with transaction.atomic(using="snappea"):
        record.delay("in the queue's own")
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert all("test_registry.py:" in warning and "delay_on_commit()" in warning for warning in warnings)
    assert "'default'" in warnings[0]


def test_without_debug_nothing_is_said(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with transaction.atomic():
        record.delay("x")
    assert not caplog.records
    assert connections["default"].in_atomic_block is False


def test_no_name_is_stolen_from_the_arguments(site: Site, made: Made) -> None:
    @made
    def take(**kwargs: int) -> dict[str, int]:
        return kwargs

    names = dict.fromkeys(("self", "args", "kwargs", "function", "task", "queue", "eta"), 1)
    assert take(**names) == names
    take.delay(**names)
    asyncio.run(take.adelay(**names))
    take.delay_on_commit(**names)
    take.s(**names).delay()
    assert [json.loads(row.kwargs) for row in Task.objects.all()] == [names] * 4
