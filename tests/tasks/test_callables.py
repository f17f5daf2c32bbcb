"""A task's function: its signature, its decorators, and results that mean unfinished work."""

import copy
import functools
import inspect
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from django.db import transaction

from snappea.errors import SnappeaError, TaskDefinitionError, UnfinishedResult
from snappea.models import Task
from snappea.tasks.calls import plain_arity, require_finished, signature_of
from snappea.tasks.function import registry, task
from snappea.testing import assert_enqueued, drain
from tests.playground import tasks
from tests.playground.tasks import nap
from tests.site import Made, Site, wait_until


def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Supply the first argument."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("session", *args, **kwargs)

    return wrapper


def dropping(function: Callable[..., Any]) -> Callable[[int], Any]:
    """Take one argument only, unlike the function."""

    @functools.wraps(function)
    def wrapper(number: int) -> Any:
        return function(number, number)

    return wrapper


# what it takes


def test_a_decorator_that_supplies_an_argument(site: Site, made: Made) -> None:
    @made
    @injecting
    def sync(session: str, number: int) -> list[Any]:
        return [session, number]

    assert sync(5) == ["session", 5]
    sync.delay(5)
    sync.delay(number=5)
    assert list(Task.objects.values_list("args", "kwargs")) == [("[5]", "{}"), ("[]", '{"number":5}')]
    assert drain() == 2


def test_a_decorator_with_a_signature_of_its_own(site: Site, made: Made) -> None:
    @made
    @dropping
    def add(a: int, b: int) -> int:
        return a + b

    add.delay(1)
    for wrong in ((), (1, 2)):
        with pytest.raises(TypeError, match="argument"):
            add.delay(*wrong)
    assert drain() == 1


@contextmanager
def nothing_special() -> Iterator[None]:
    yield


@pytest.mark.parametrize("decorate", [transaction.atomic, nothing_special(), transaction.atomic(using="x")])
def test_decorators_that_pass_everything_on_are_looked_through(site: Site, made: Made, decorate: Any) -> None:
    @made
    @decorate  # type: ignore[untyped-decorator]
    def send(user_id: int) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument: 'user_id'"):
        send.delay()
    with pytest.raises(TypeError, match="unexpected keyword argument 'body'"):
        send.delay(1, body="x")


def test_a_signature_that_a_decorator_tells_is_believed_and_a_copied_one_is_not() -> None:
    def function(a: int) -> None: ...

    function.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
    assert not signature_of(function).parameters
    assert list(signature_of(injecting(function)).parameters) == ["args", "kwargs"]
    mocked = mock.create_autospec(function)
    assert not signature_of(mocked).parameters


@pytest.mark.parametrize(
    ("function", "fits", "fits_not"),
    [
        (lambda: 0, [0], [1]),
        (lambda a, b=1: 0, [1, 2], [0, 3]),
        (lambda a, *rest, **more: 0, [1, 100], [0]),
        (lambda a, *, b=1: 0, [1], [0, 2]),
    ],
)
def test_how_many_arguments_fit(function: Any, fits: list[int], fits_not: list[int]) -> None:
    arity = plain_arity(inspect.signature(function))
    assert arity is not None
    assert all(count in arity for count in fits) and not any(count in arity for count in fits_not)
    assert plain_arity(inspect.signature(lambda a, *, b: 0)) is None


def test_names_count_inside_of_a_decorator(site: Site) -> None:
    """For `unique`, and for `using` of delay_on_commit()."""

    def report(day: int, using: str = "") -> None: ...

    def passing_on(*args: Any, **kwargs: Any) -> None:
        report(*args, **kwargs)

    made = task(name="tests.report", unique=True)(functools.wraps(report)(passing_on))
    try:
        assert made.delay(1) == made.delay(day=1) != made.delay(2)
        assert_enqueued(made, day=1)
        made.delay_on_commit(3, using="ours")
        assert Task.objects.filter(kwargs='{"using":"ours"}').exists()
    finally:
        del registry["tests.report"]


@pytest.mark.parametrize("wrong", [functools.partial(nap, "x"), functools.cache(lambda: 0), mock.Mock(), nap])
def test_what_is_no_function_is_refused_with_the_cure(wrong: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=r"@task takes a function, not .* Write a function"):
        task(name="tests.wrong")(wrong)


# what it returns


def test_what_has_not_run_is_a_failure_wherever_it_comes_from(site: Site) -> None:
    names = ["generator", "async_generator", "coroutine_in_process", "coroutine_on_loop", "decorated"]
    names += ["in_transaction", "future", "lazy_map"]
    home = "tests.playground.unfinished"
    for name in [*names, "right"]:
        is_async = name == "coroutine_on_loop"
        Task.objects.create(task_name=f"{home}.{name}", args=[], kwargs={}, is_async=is_async)
    foreman = site.foreman()
    wait_until(lambda: site.counts() == {"failed": len(names)}, f"{site.counts()}")
    assert site.ledger.keys("end") == {"right": 1}
    for row in Task.objects.all():
        assert re.search(r"UnfinishedResult: .* nothing waits for it\. (Loop|Make|Wait) .*task", row.error)
        assert row.exception == "UnfinishedResult"
    assert "never awaited" not in foreman.output()


def test_what_has_not_run_is_a_failure_without_a_foreman_too(site: Site, made: Made, settings: Any) -> None:
    @made
    def give(kind: str) -> Any:
        return {"generator": (x for x in "a"), "future": Future(), "mock": mock.MagicMock()}[kind]

    give.delay("generator")
    with pytest.raises(UnfinishedResult, match=r"tests\.made returned a generator.*Loop over it in the task"):
        drain()
    settings.SNAPPEA = site.settings | {"TASK_ALWAYS_EAGER": True}
    with pytest.raises(UnfinishedResult, match=r"returned a Future.*Wait for its result\(\)"):
        give.delay("future")
    give.delay("mock")
    assert issubclass(UnfinishedResult, (SnappeaError, TypeError))


@pytest.mark.parametrize("value", [None, 1, "x", b"x", [], {}, object(), iter([1]), mock.Mock(), Task()])
def test_what_has_ended_is_no_failure(value: Any) -> None:
    require_finished(value, "t")


# the task as an object


def test_a_task_is_pickled_and_copied_as_its_function_would_be() -> None:
    record, nap = tasks.record, tasks.nap  # as the module has them: another test reloads it
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps([record, nap], protocol)) == [record, nap]
    assert copy.deepcopy(record) is copy.copy(record) is record
    signature = pickle.loads(pickle.dumps(record.s("x").set(queue="mail")))
    assert signature.task is record and signature.args == ("x",) and signature.options == {"queue": "mail"}
