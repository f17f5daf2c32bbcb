"""The options of @task: valid values, and the errors for invalid ones."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast, get_args, get_type_hints

import pytest
from celery import Celery
from celery import Task as CeleryTask
from kombu.messaging import Producer

from snappea import task
from snappea.errors import TaskDefinitionError
from snappea.tasks import foreign
from snappea.tasks.function import TaskFunction, registry
from snappea.tasks.options import Options, rate_of


@pytest.fixture(autouse=True)
def tidy_registry() -> Iterator[None]:
    before = set(registry)
    yield
    for name in set(registry) - before:
        del registry[name]


def declared(**options: Any) -> TaskFunction[..., None]:
    """Declare a task as a module would."""

    def function(*args: Any, **kwargs: Any) -> None: ...

    function.__module__, function.__qualname__ = "shop.tasks", "ship"
    return cast(Any, task)(**options)(function)  # type: ignore[no-any-return]


def test_every_option_has_a_default_and_none_is_positional() -> None:
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(Options))
    assert declared().options == Options(name="shop.tasks.ship")


RIGHT: list[dict[str, Any]] = [
    {"name": "x" * 255},
    {"queue": "q" * 100},
    {"priority": -100},
    {"priority": 100},
    {"acks_late": True},
    {"expires": 0},
    {"expires": 0.5},
    {"expires": None},
    {"expires": timedelta(minutes=1)},
    {"autoretry_for": ()},
    {"autoretry_for": (OSError, KeyError), "dont_autoretry_for": (FileNotFoundError,)},
    {"max_retries": 0},
    {"max_retries": None},
    {"default_retry_delay": 0},
    {"retry_backoff": True, "retry_backoff_max": 10, "retry_jitter": False},
    {"retry_backoff": 2.5},
    {"unique": True},
    {"unique": "running"},
    {"unique": len, "on_conflict": "replace"},
    {"unique_for": 60, "on_conflict": "raise"},
    {"unique": "running", "unique_for": timedelta(hours=1)},
    {"debounce": 5, "debounce_max": timedelta(minutes=1), "on_conflict": "replace"},
    {"throttle": 0.5, "unique": len, "on_conflict": "raise"},
    {"max_concurrency": 1},
    {"max_concurrency": 2, "concurrency_key": len},
    {"fair_by": len},
    {"rate_limit": "10/s", "max_concurrency": 3},
    {"rate_limit": "10/s burst 20", "max_concurrency": 3, "concurrency_key": len},
    {"rate_limit": "0.5/h burst 1", "concurrency_key": len},
    {"rate_limit": str, "max_concurrency": len},
    {"rate_limit": "1/s", "on_limit": "discard"},
    {"result_ttl": 0},
    {"result_ttl": 3600},
    {"aliases": ["old.name", "older.name"]},
    {"soft_time_limit": 0.5},
    {"soft_time_limit": 30, "time_limit": 60},
    {"time_limit": 0.1, "retry_on_kill": True},
    {"isolate": True, "retry_on_kill": True},
    {"max_memory": "512M", "retry_on_kill": True},
    {"max_memory": 2**29},
    {"aliases": ("old.name",)},
]


@pytest.mark.parametrize("options", RIGHT, ids=str)
def test_what_is_right(options: dict[str, Any]) -> None:
    made = declared(**options)
    for key, value in options.items():
        assert getattr(made.options, key) == value


INF, NAN = float("inf"), float("nan")


async def key_of(account: int) -> int:
    """An invalid key function: its result would have to be awaited."""
    return account


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "x" * 256}, "must be a string of 1 to 255 characters"),
    ({"name": 5}, "name=5 must be a string of 1 to 255 characters"),
    ({"queue": ""}, "queue='' must be a string of 1 to 100 characters"),
    ({"queue": "q" * 101}, "must be a string of 1 to 100 characters"),
    ({"queue": None}, "queue=None must be a string"),
    ({"priority": 101}, "priority=101 must be from -100 to 100"),
    ({"priority": -101}, "priority=-101 must be from -100 to 100"),
    ({"priority": "high"}, "priority='high' must be from -100 to 100"),
    ({"priority": 1.5}, "priority=1.5 must be from -100 to 100"),
    ({"priority": True}, "priority=True must be from -100 to 100"),
    ({"acks_late": 1}, "acks_late=1 must be True or False"),
    ({"expires": "soon"}, "expires='soon' must be a number of seconds or a timedelta"),
    ({"expires": -1}, "expires=-1 must be a number of seconds or a timedelta"),
    ({"expires": True}, "expires=True must be a number of seconds or a timedelta"),
    ({"expires": float("nan")}, "expires=nan must be a number of seconds or a timedelta"),
    ({"autoretry_for": OSError}, "autoretry_for=<class 'OSError'> must be a tuple of exceptions"),
    ({"autoretry_for": (OSError, "KeyError")}, "must be a tuple of exceptions"),
    ({"autoretry_for": (OSError(),)}, "must be a tuple of exceptions"),
    ({"dont_autoretry_for": (int,)}, "must be a tuple of exceptions"),
    ({"dont_autoretry_for": None}, "must be a tuple of exceptions"),
    ({"max_retries": -1}, "max_retries=-1 must be a whole number, or None for no limit"),
    ({"max_retries": 2.0}, "max_retries=2.0 must be a whole number"),
    ({"max_retries": "3"}, "max_retries='3' must be a whole number"),
    ({"max_retries": True}, "max_retries=True must be a whole number"),
    ({"default_retry_delay": -1}, "default_retry_delay=-1 must be a number of seconds"),
    ({"default_retry_delay": None}, "default_retry_delay=None must be a number of seconds"),
    ({"retry_backoff": "yes"}, "retry_backoff='yes' must be True, False or a number of seconds"),
    ({"retry_backoff": -2}, "must be True, False or a number of seconds"),
    ({"retry_backoff_max": None}, "retry_backoff_max=None must be a number of seconds"),
    (
        {"unique": "waiting"},
        "unique='waiting' must be True, False, \"running\" or a function of the arguments",
    ),
    ({"unique": "running", "debounce": 5}, "a call cannot replace another one with unique_for, throttle or"),
    ({"unique_for": 5, "on_conflict": "replace"}, "a call cannot replace another one with unique_for"),
    ({"debounce": 5, "throttle": 5}, "give one of unique_for, debounce and throttle"),
    (
        {"debounce": 5, "on_conflict": "raise"},
        "debounce replaces the call that waits: remove on_conflict='raise'",
    ),
    ({"debounce_max": 5}, "debounce_max needs debounce"),
    ({"on_conflict": "raise"}, "on_conflict='raise' needs unique, unique_for or throttle"),
    ({"on_conflict": "ignore", "unique": True}, 'on_conflict=\'ignore\' must be "discard", "replace" or'),
    ({"unique": None}, "unique=None must be True, False"),
    ({"max_concurrency": 0}, "max_concurrency=0 must be a whole number of at least 1"),
    ({"max_concurrency": "2"}, "max_concurrency='2' must be a whole number of at least 1"),
    ({"max_concurrency": True}, "max_concurrency=True must be a whole number of at least 1"),
    ({"fair_by": "tenant"}, "fair_by='tenant' must be a function of the arguments"),
    (
        {"rate_limit": ["10/s", "1000/h"]},
        'instead of two rates, such as 10/s and 1000/h, write "1000/h burst 10"',
    ),
    ({"on_limit": "discard"}, "on_limit needs max_concurrency or rate_limit"),
    ({"on_limit": "drop", "max_concurrency": 1}, 'on_limit=\'drop\' must be "wait" or "discard"'),
    ({"concurrency_key": len}, "concurrency_key needs max_concurrency or rate_limit"),
    ({"concurrency_key": "account", "max_concurrency": 1}, "concurrency_key='account' must be a function"),
    *(
        ({"rate_limit": rate}, f'rate_limit={rate!r} must be a number and a unit, as in "10/m" (s, m or h)')
        for rate in ("0/s", "0.0/m", "10", "10/d", "/s", "-1/s", "10 / s", "1e3/s", "", "ten/s", 10, 0.5)
    ),
    *(
        ({"rate_limit": f"1/s{burst}"}, "must be a number and a unit")
        for burst in (
            " burst",
            " burst 0",
            " burst -1",
            " burst 1.5",
            "  burst 2",
            " burst 9999999999",
            "burst 2",
        )
    ),
    ({"result_ttl": -1}, "result_ttl=-1 must be a number of seconds"),
    ({"result_ttl": True}, "result_ttl=True must be a number of seconds"),
    ({"result_ttl": "1h"}, "result_ttl='1h' must be a number of seconds"),
    *(
        ({key: limit}, "must be more than 0 seconds")
        for key in ("soft_time_limit", "time_limit")
        for limit in (0, -1, "30", True, float("nan"))
    ),
    ({"soft_time_limit": 60, "time_limit": 30}, "soft_time_limit=60 must be below time_limit=30"),
    ({"soft_time_limit": 30, "time_limit": 30}, "soft_time_limit=30 must be below time_limit=30"),
    ({"max_memory": "lots"}, "max_memory='lots' must be a number of bytes, or as in \"512M\""),
    ({"max_memory": 0}, "max_memory=0 must be a number of bytes"),
    ({"max_memory": "80%"}, "max_memory='80%' must be a number of bytes"),
    ({"isolate": 1}, "isolate=1 must be True or False"),
    ({"retry_on_kill": "yes", "isolate": True}, "retry_on_kill='yes' must be True or False"),
    ({"retry_on_kill": True}, "retry_on_kill needs a process of its own"),
    ({"aliases": "old.name"}, "aliases='old.name' must be a list of names"),
    ({"aliases": [1]}, "aliases=[1] must be a list of names"),
    ({"aliases": None}, "aliases=None must be a list of names"),
    ({"aliases": ["x" * 256]}, "must be a list of names"),
    ({"name": "\ud800"}, "must be a string of 1 to 255 characters"),
    ({"queue": "\ud800"}, "must be a string of 1 to 100 characters"),
    ({"expires": timedelta(seconds=-1)}, "must be a number of seconds or a timedelta"),
    ({"retry_jitter": "full"}, "retry_jitter='full' must be True or False"),
    ({"retry_backoff_factor": 0.5}, "retry_backoff_factor=0.5 must be a number from 1 to 1,000"),
    *(
        ({"retry_backoff_factor": wrong}, "must be a number from 1 to 1,000")
        for wrong in ("2", True, None, INF, NAN)
    ),
    *(
        ({key: wrong}, "at most 1,000,000,000")
        for key in ("result_ttl", "default_retry_delay", "retry_backoff", "retry_backoff_max", "time_limit")
        for wrong in (INF, NAN, 10**30, timedelta(hours=1), "1h")
    ),
    *(({"max_concurrency": wrong}, "at most 1,000,000,000") for wrong in (10**10, 10**30, 1.5, INF)),
    *(
        ({"rate_limit": wrong}, "must be a number and a unit")
        for wrong in ("0.0000000001/h", "9" * 400 + "/s")
    ),
    *(({"max_memory": wrong}, "must be a number of bytes") for wrong in ("9" * 400, 2**63, -1, True, 1.5)),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_said_at_once_with_the_task_and_the_cure(
    options: dict[str, Any], message: str
) -> None:
    """The error is raised at import, before anything can be enqueued."""
    before = dict(registry)
    with pytest.raises(TaskDefinitionError) as raised:
        declared(**options)
    said = str(raised.value)
    assert message in said
    assert said.startswith(f"{options.get('name') or 'shop.tasks.ship'}: ") and said.endswith(".")
    assert registry == before


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("max_retrys", "did you mean 'max_retries'?"),
        ("prio", "did you mean 'priority'?"),
        ("ack_late", "did you mean 'acks_late'?"),
        ("rate_limits", "did you mean 'rate_limit'?"),
        ("concurrency", "did you mean 'max_concurrency'?"),
        ("zzz", "the options are name, queue, priority, acks_late"),
    ],
)
def test_an_option_that_there_is_not(wrong: str, hint: str) -> None:
    with pytest.raises(TaskDefinitionError) as raised:
        declared(**{wrong: 1})
    assert str(raised.value).startswith(f"shop.tasks.ship: @task has no option {wrong!r}; {hint}")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("pass_context", "use current_task instead of the argument"),
        ("acks_on_failure", "remove it: a failed task is kept"),
        ("retry_on_worker_lost", "use acks_late=True"),
        ("base", "there are no task classes: use HOOK_RUN_TASK_CONTEXT"),
        ("throws", "use dont_autoretry_for for exceptions after which the task is not retried"),
        ("timeout", "use soft_time_limit, or time_limit"),
        ("ttl", "use expires"),
        ("retries", "use autoretry_for, max_retries and default_retry_delay"),
        ("queue_name", "use queue"),
        ("crontab", 'use cron="0 3 * * *"'),
        ("link", "write a.s"),
        ("hook", "task_succeeded"),
        ("commit_mode", "delay_on_commit()"),
    ],
)
def test_an_option_of_another_queue_is_refused_with_its_equivalent(theirs: str, ours: str) -> None:
    with pytest.raises(TaskDefinitionError) as raised:
        declared(**{theirs: 1})
    said = str(raised.value)
    assert (
        f"@task has no option {theirs!r}; " in said and ours in said.partition("; ")[2] and said.endswith(".")
    )


def test_each_option_of_celery_works_or_has_an_equivalent() -> None:
    internal = {"request", "request_stack", "Request", "Strategy", "from_config", "self", "fun", "options"}
    of_tasks = {
        name
        for name, value in vars(CeleryTask).items()
        if name[0] != "_" and not callable(value) and not isinstance(value, classmethod)
    }
    of_tasks |= {*inspect.signature(Celery._task_from_fun).parameters, "after_return", "before_start"}
    of_tasks |= {name for name in vars(CeleryTask) if name.startswith("on_")} - {"on_bound"}
    of_tasks -= internal
    ours = {field.name for field in dataclasses.fields(Options)}
    assert not of_tasks - ours - foreign.TASK_OPTIONS.keys()
    sending = (CeleryTask.apply_async, CeleryTask.apply, Celery.send_task, Producer.publish)
    of_calls = {name for method in sending for name in inspect.signature(method).parameters}
    of_calls -= {"self", "options", "name", "body", "properties"}
    known = {*inspect.signature(TaskFunction.apply_async).parameters, "throw"}
    assert not of_calls - known - foreign.CALL_OPTIONS.keys()
    of_retries = set(inspect.signature(CeleryTask.retry).parameters) - {"self", "options"}
    known = {*inspect.signature(TaskFunction.retry).parameters}
    assert not of_retries - known - foreign.RETRY_OPTIONS.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore_result": False}, "ignore_result=False needs result_ttl, in seconds, to keep results."),
        ({"ignore_result": True, "result_ttl": 9}, "ignore_result=True keeps no result, and result_ttl=9"),
        ({"bind": "yes"}, "bind='yes' must be True or False."),
        ({"track_started": 1}, "track_started=1 must be True or False."),
    ],
)
def test_options_from_celery_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=re.escape(message)):
        declared(**options)


def test_options_from_celery_that_work() -> None:
    assert declared(ignore_result=True, track_started=True).options.result_ttl is None
    assert declared(ignore_result=False, track_started=False, result_ttl=9).options.result_ttl == 9


def test_no_option_of_ours_is_among_those_of_others() -> None:
    ours = {field.name for field in dataclasses.fields(Options)} | {"retry_kwargs"}
    assert not ours & set(foreign.TASK_OPTIONS)
    assert not set(TaskFunction.apply_async.__kwdefaults__ or ()) & foreign.CALL_OPTIONS.keys()


def test_a_key_that_would_have_to_be_awaited() -> None:
    with pytest.raises(TaskDefinitionError, match="concurrency_key must not be `async def`"):
        declared(concurrency_key=key_of, max_concurrency=1)
    with pytest.raises(TaskDefinitionError, match="fair_by must not be `async def`"):
        declared(fair_by=key_of)


def test_a_number_that_python_does_not_show() -> None:
    with pytest.raises(TaskDefinitionError, match="priority=<int that cannot be shown> must be from -100"):
        declared(priority=10**5000)


def test_retry_kwargs_that_are_no_dict() -> None:
    with pytest.raises(TaskDefinitionError, match="retry_kwargs='x' must be a dict"):
        declared(retry_kwargs="x")


def test_lists_of_exceptions_are_welcome() -> None:
    options = declared(autoretry_for=[OSError], dont_autoretry_for=[FileNotFoundError]).options
    assert (options.autoretry_for, options.dont_autoretry_for) == ((OSError,), (FileNotFoundError,))


@pytest.mark.parametrize(
    ("rate", "interval", "burst"),
    [
        *(("10/s", 0.1, None), ("1/s", 1.0, None), ("0.5/s", 2.0, None), ("10/m", 6.0, None)),
        *(("60/m", 1.0, None), ("4/h", 900.0, None), ("4/h burst 20", 900.0, 20), (None, None, None)),
    ],
)
def test_the_interval_and_the_burst_of_a_rate(
    rate: str | None, interval: float | None, burst: int | None
) -> None:
    assert rate_of(rate) == (interval, burst)


def test_the_delays_of_retries() -> None:
    assert [Options().retry_delay(retries) for retries in (0, 5)] == [180, 180]
    assert Options(default_retry_delay=7).retry_delay(3) == 7
    plain = Options(retry_backoff=True, retry_jitter=False)
    assert [plain.retry_delay(retries) for retries in (0, 1, 2, 9, 10, 10**6)] == [1, 2, 4, 512, 600, 600]
    slow = Options(retry_backoff=3, retry_backoff_max=20, retry_jitter=False)
    assert [slow.retry_delay(retries) for retries in range(5)] == [3, 6, 12, 20, 20]
    tripled = Options(retry_backoff=1, retry_backoff_factor=3, retry_jitter=False)
    assert [tripled.retry_delay(retries) for retries in (0, 1, 2, 10**6)] == [1, 3, 9, 600]
    steady = Options(retry_backoff=5, retry_backoff_factor=1, retry_jitter=False)
    assert [steady.retry_delay(retries) for retries in (0, 9)] == [5, 5]
    jittered = [Options(retry_backoff=8).retry_delay(1) for _ in range(200)]
    assert all(0 <= delay <= 16 for delay in jittered) and len(set(jittered)) > 100


@pytest.mark.parametrize("options", [{"time_limit": 60}, {"isolate": True}, {"max_memory": "1G"}], ids=str)
def test_what_runs_in_a_process_of_its_own(options: dict[str, Any]) -> None:
    assert declared(**options).options.is_isolated
    assert not declared(soft_time_limit=60).options.is_isolated


def test_the_literals_of_unique() -> None:
    assert get_args(get_args(get_type_hints(Options)["unique"])[1]) == ("running",)


@pytest.mark.parametrize("option", ["unique", "concurrency_key", "fair_by", "max_concurrency", "rate_limit"])
def test_a_function_of_the_arguments_takes_them_as_called_or_by_name(option: str) -> None:
    seen = []

    def first(number: int, **kwargs: Any) -> Any:
        seen.append((number, kwargs))
        return {"max_concurrency": 1, "rate_limit": "1/s"}.get(option, number)

    extra: dict[str, Any] = {"max_concurrency": 1} if option == "concurrency_key" else {}
    made = cast(Any, task)(name=f"tests.{option}", **extra, **{option: first})(
        lambda number, word="", **more: None
    )
    made.call((1, "x"), {})
    made.call((2,), {"word": "y", "color": "red"})
    made.call((), {"number": 3})
    assert seen == [(1, {"word": "x"}), (2, {"word": "y", "color": "red"}), (3, {})]


def test_a_function_that_does_not_fit_the_arguments() -> None:
    made = task(name="tests.unfit", unique=lambda other: other)(lambda number, word: None)
    with pytest.raises(TypeError, match=r"tests\.unfit: unique is called with the arguments of the task: "):
        made.call((1, "x"), {})


def test_a_type_can_be_the_function_of_the_arguments() -> None:
    made = task(name="tests.typed", fair_by=str)(lambda number: None)
    extras = made.call((7,), {}).extras
    assert extras and extras.fair_key == "7"
