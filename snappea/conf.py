"""The SNAPPEA setting: its keys, their defaults, and what is wrong with what was written.

Every key is optional. Times are in seconds.
"""

import dataclasses
import difflib
import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from . import foreign
from .errors import ConfigurationError
from .memory import parse_size


@dataclasses.dataclass(frozen=True)
class Settings:
    """settings.SNAPPEA with the defaults filled in."""

    #: Who runs the tasks: the Foreman, or Celery's workers. It counts from when the app is ready.
    ENGINE: Literal["snappea", "celery"] = "snappea"
    #: The alias in DATABASES under which the queue's database stands.
    DATABASE: str = "snappea"
    #: How many tasks run at once, each in a thread.
    NUM_WORKERS: int = 4
    #: How long running tasks may go on after the first SIGTERM or SIGINT, in seconds.
    GRACEFUL_TIMEOUT: float = 10.0
    #: Whether the first signal lets the Foreman empty the queue before it stops.
    WORKAHOLIC: bool = False
    #: Whether `delay()` runs the task at once, in the caller, without a queue (for tests).
    TASK_ALWAYS_EAGER: bool = False
    #: What `delay()` does while tests run. "collect": it keeps the call in memory, for `snappea.testing`
    #: to look at and to run. "write": it writes a row, as ever.
    IN_TESTS: Literal["collect", "write"] = "collect"
    #: "FULL": a `delay()` that returned survives a power cut. "NORMAL": it survives any crash of
    #: a process, but a power cut may take the last moments; about ten times faster.
    SYNCHRONOUS: Literal["FULL", "NORMAL"] = "FULL"
    #: Whether to wait for wakeups by inotify where it is to be had. False: poll.
    USE_INOTIFY: bool = True
    #: How often to look where there is no inotify, in seconds.
    POLL_INTERVAL: float = 0.05
    #: Whether a task's arguments appear in the log.
    LOG_ARGUMENTS: bool = False
    #: How often a task with acks_late may be interrupted before it is kept for a person to decide.
    MAX_INTERRUPTIONS: int = 3
    #: The most that the arguments of one call may take as JSON, in bytes.
    MAX_ARGUMENT_BYTES: int = 1_048_576
    #: The most that a result that is kept may take as JSON, in bytes.
    MAX_RESULT_BYTES: int = 10_485_760
    #: A subclass of json.JSONEncoder, or its path: arguments and results that are not JSON become what its
    #: default() returns, and arrive as that. "django.core.serializers.json.DjangoJSONEncoder" makes text of
    #: datetimes, UUIDs and Decimals. None: they are refused.
    JSON_ENCODER: type[json.JSONEncoder] | str | None = None
    #: The queues that exist beside "default", each with its limits; None: any name is a queue.
    #: {"mail": {"max_concurrency": 2, "soft_time_limit": 30}, "reports": {}}
    QUEUES: dict[str, dict[str, float]] | None = None
    #: What is to be enqueued by itself, beside the tasks whose options say so: a dict for each, with a
    #: "task", "cron" or "every", and as one likes "name", "args", "kwargs", "queue", "timezone", "catch_up".
    SCHEDULES: Sequence[Mapping[str, Any]] = ()
    #: After how long SoftTimeLimitExceeded is raised inside a task, if neither it nor its queue says
    #: otherwise; None: never.
    SOFT_TIME_LIMIT: float | None = None
    #: How many threads may hang beyond their task's limit, each replaced by another, before the Foreman
    #: stops.
    MAX_STUCK_WORKERS: int = 8
    #: How many `async def` tasks run at once, beside those in threads.
    ASYNC_CONCURRENCY: int = 100
    #: How many tasks run in a thread before a new thread replaces it; None: no limit. 1: each task has a
    #: thread of its own.
    MAX_TASKS_PER_THREAD: int | None = None
    #: How many tasks the Foreman starts before it starts anew, under the same pid; None: no end.
    MAX_TASKS: int | None = None
    #: How much memory it may have before it does, in bytes, as in "800M", or as in "80%" of the machine's
    #: or container's; None: no end.
    MAX_MEMORY: int | str | None = None
    #: On PostgreSQL: a Foreman that was not heard of for so long is taken for dead, and what it ran is
    #: interrupted, in seconds.
    FOREMAN_TIMEOUT: float = 30.0
    #: For how many minutes the numbers of the dashboard are kept; 0: there are none.
    STATS_RETENTION_MINUTES: int = 10_080
    #: The admin warns when the oldest ready task has waited longer than this, in seconds; None: never.
    WARN_BACKLOG_SECONDS: float | None = 60.0
    #: Who sends it as a bearer token may see health and metrics, beside staff who may view tasks.
    MONITORING_TOKEN: str | None = None
    #: Whether everybody may see health and metrics.
    MONITORING_IS_PUBLIC: bool = False
    #: A function, or the path of one, that returns keyword arguments to add to each call that is enqueued.
    HOOK_ADD_TASK_KWARGS: Callable[[], dict[str, Any]] | str | None = None
    #: A function, or the path of one, that is given a task's keyword arguments, may take out what the
    #: other hook added, and returns a context manager for the task to run in.
    HOOK_RUN_TASK_CONTEXT: Callable[[dict[str, Any]], AbstractContextManager[Any]] | str | None = None


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
_AT_LEAST: dict[str, float] = {
    "NUM_WORKERS": 1,
    "GRACEFUL_TIMEOUT": 0,
    "POLL_INTERVAL": 0.001,
    "MAX_INTERRUPTIONS": 1,
    "MAX_ARGUMENT_BYTES": 4,
    "MAX_RESULT_BYTES": 4,
    "SOFT_TIME_LIMIT": 0.001,
    "MAX_STUCK_WORKERS": 0,
    "ASYNC_CONCURRENCY": 1,
    "MAX_TASKS": 1,
    "MAX_TASKS_PER_THREAD": 1,
    "FOREMAN_TIMEOUT": 1,
    "STATS_RETENTION_MINUTES": 0,
    "WARN_BACKLOG_SECONDS": 0,
}
#: More than this is a mistake, which would end in a lack of memory or in a time that nobody can count to.
_AT_MOST: dict[str, float] = {
    "MAX_ARGUMENT_BYTES": 400_000_000,  # SQLite takes a row of 1 GB at most
    "MAX_RESULT_BYTES": 400_000_000,
    "NUM_WORKERS": 10_000,
    "MAX_STUCK_WORKERS": 10_000,
    "ASYNC_CONCURRENCY": 100_000,
}
_MOST = 1e9


@functools.cache
def current() -> Settings:
    """Return the settings in force: settings.SNAPPEA, with the defaults filled in.

    >>> current().NUM_WORKERS
    4

    Raises ConfigurationError for an unknown or ill-typed key.
    """
    configured = getattr(settings, "SNAPPEA", {})
    if wrong := problems(configured):
        raise ConfigurationError("; ".join(f"{message} {hint}" for message, hint in wrong))
    return Settings(**configured)


def alias() -> str:
    """Return the alias of the queue's database, even if other keys are wrong: for the router.

    `manage.py check` asks the router before it tells what is wrong.
    """
    configured = getattr(settings, "SNAPPEA", {})
    chosen = configured.get("DATABASE") if isinstance(configured, dict) else None
    return chosen if isinstance(chosen, str) else Settings.DATABASE


def uses_celery() -> bool:
    """Tell whether Celery's workers run the tasks, even if other keys are wrong."""
    configured = getattr(settings, "SNAPPEA", {})
    return isinstance(configured, dict) and configured.get("ENGINE") == "celery"


def collects() -> bool:
    """Tell whether calls are kept in memory, because tests run and IN_TESTS does not say otherwise."""
    return tests_run() and current().IN_TESTS == "collect"


def tests_run() -> bool:
    """Tell whether this process runs tests: from setup_test_environment() on."""
    utils = sys.modules.get("django.test.utils")  # which a process that runs no tests hardly ever loads
    return utils is not None and "saved_data" in vars(utils._TestState)


def declared_queues() -> list[str] | None:
    """Return the names that a queue may have; None: any."""
    queues = current().QUEUES
    return None if queues is None else list(dict.fromkeys(("default", *queues)))


def soft_time_limit_of(queue: str) -> float | None:
    """Return after how many seconds a task of a queue is interrupted, if it does not say so itself."""
    settings = current()
    limit = settings.QUEUES.get(queue, {}).get("soft_time_limit") if settings.QUEUES else None
    return settings.SOFT_TIME_LIMIT if limit is None else limit


HOOKS: tuple[Literal["HOOK_ADD_TASK_KWARGS"], Literal["HOOK_RUN_TASK_CONTEXT"]] = (
    "HOOK_ADD_TASK_KWARGS",
    "HOOK_RUN_TASK_CONTEXT",
)


@functools.cache
def hook(name: Literal["HOOK_ADD_TASK_KWARGS", "HOOK_RUN_TASK_CONTEXT"]) -> Callable[..., Any] | None:
    """Return the function of a hook, None if there is none. Raises ConfigurationError."""
    named: Callable[..., Any] | str | None = getattr(current(), name)
    try:
        found: Callable[..., Any] | None = import_string(named) if isinstance(named, str) else named
        return found
    except (ImportError, TypeError, ValueError) as error:  # of "." and ".." Python says the others
        raise ConfigurationError(f"SNAPPEA[{name!r}] is {named!r}: {error}") from error


@functools.cache
def json_default() -> Callable[[Any], Any] | None:
    """Return what makes JSON of other values, by JSON_ENCODER; None if nothing does.

    Raises ConfigurationError.
    """
    named = current().JSON_ENCODER
    if named is None:
        return None
    try:
        kind = import_string(named) if isinstance(named, str) else named
        found: Callable[[Any], Any] = kind().default
        return found
    except (ImportError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f'SNAPPEA["JSON_ENCODER"] is {named!r}: {error}') from error


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "SNAPPEA":
        current.cache_clear()
        hook.cache_clear()
        json_default.cache_clear()


def problems(configured: object) -> list[tuple[str, str]]:
    """Return what is wrong with a SNAPPEA setting, as pairs of message and hint."""
    if not isinstance(configured, dict):
        return [("SNAPPEA is not a dict.", 'Write SNAPPEA = {"NUM_WORKERS": 8}.')]
    found = []
    for key, value in configured.items():
        if key not in _FIELDS:
            found.append((f"SNAPPEA has an unknown key {shown(key)}.", _did_you_mean(key)))
        elif expected := _expected(key, value):
            found.append((f"SNAPPEA[{key!r}] is {shown(value)}.", f"It must be {expected}."))
    return found


def shown(value: object) -> str:
    """Return a value as Python writes it, or its type if that fails."""
    try:
        return repr(value)
    except Exception:  # an integer of thousands of digits, or somebody's __repr__
        return f"of type {type(value).__name__}, and cannot be shown"


def _did_you_mean(key: object) -> str:
    if key in foreign.SETTINGS:
        return foreign.SETTINGS[str(key)]
    close = difflib.get_close_matches(key.upper(), _FIELDS, n=1) if isinstance(key, str) else ()
    return f"Did you mean {close[0]!r}?" if close else f"The keys are {', '.join(_FIELDS)}."


def _expected(key: str, value: object) -> str:
    """Say what a value should have been, or nothing if it is right."""
    kind: Any = _FIELDS[key].type
    if key == "QUEUES":
        return "" if _are_queues(value) else 'a dict such as {"mail": {"max_concurrency": 2}, "reports": {}}'
    if key == "SCHEDULES":
        return _expected_schedules(value)
    if key == "MAX_MEMORY":
        is_right = value is None or parse_size(value) is not None or _is_share(value)
        return "" if is_right else 'a number of bytes, or as in "800M" or "80%", or None'
    if key == "MONITORING_TOKEN":
        return (
            "" if value is None or (isinstance(value, str) and value.strip()) else "a secret string, or None"
        )
    if key == "JSON_ENCODER":
        is_right = value is None or isinstance(value, str) or hasattr(value, "default")
        return "" if is_right else "a subclass of json.JSONEncoder, its path, or None"
    if key.startswith("HOOK_"):
        return "" if value is None or isinstance(value, str) or callable(value) else "a function, or its path"
    if get_origin(kind) is Literal:
        return "" if value in get_args(kind) else " or ".join(repr(word) for word in get_args(kind))
    if kind is bool or kind is str:
        return "" if isinstance(value, kind) else {bool: "True or False", str: "a string"}[kind]
    return _expected_number(key, kind, value)


def _expected_number(key: str, kind: Any, value: Any) -> str:
    is_optional = NoneType in get_args(kind)
    number = int if kind is int or int in get_args(kind) else (int, float)
    least, most = _AT_LEAST[key], _AT_MOST.get(key, _MOST)
    is_number = isinstance(value, number) and not isinstance(value, bool)
    if is_number and least <= value <= most:
        return ""
    if value is None and is_optional:
        return ""
    what = f"{'a whole number' if number is int else 'a number'} of at least {least:g}"
    if is_number and value > most:
        what += f" and at most {most:,.0f}"
    return f"{what}, or None" if is_optional else what


def _is_share(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"(100|[1-9]\d?)%", value))


def _are_queues(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and isinstance(limits, dict)
        and limits.keys() <= {"max_concurrency", "soft_time_limit"}
        and all(_is_limit(limit, key == "max_concurrency") for key, limit in limits.items())
        for name, limits in value.items()
    )


def _is_limit(value: object, is_whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
        return False
    return value >= 1 if is_whole else value > 0


_IN_SCHEDULES: dict[str, Any] = {
    "task": str,
    "cron": str,
    "every": (int, float, timedelta),
    "name": str,
    "args": (list, tuple),
    "kwargs": dict,
    "queue": (str, NoneType),
    "timezone": str,
    "catch_up": bool,
}


def _expected_schedules(value: object) -> str:
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, dict) for entry in value):
        return 'a list of dicts such as {"task": "shop.tasks.report", "cron": "0 3 * * *"}'
    for number, entry in enumerate(value):
        wrong = [key for key, item in entry.items() if not isinstance(item, _IN_SCHEDULES.get(key, ()))]
        if wrong:
            key, known = wrong[0], ", ".join(_IN_SCHEDULES)
            return (
                f"right in [{number}]: {key!r} is {shown(entry[key])}"
                if key in _IN_SCHEDULES
                else f"a list of dicts whose keys are {known}; [{number}] has {shown(key)}"
            )
        if "task" not in entry or ("cron" in entry) == ("every" in entry):
            return f'a list of dicts with "task", and with "cron" or "every"; [{number}] is not'
        if not is_interval(entry.get("every", 1)):
            return f'more than 0 seconds in "every", or a timedelta; [{number}] is not'
    return ""


def is_interval(value: object) -> bool:
    """Tell whether a value can be a distance in time: seconds from 0.001 to 1e9, or a timedelta of those."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0.001 <= seconds <= 1e9
