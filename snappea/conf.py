"""The SNAPPEA setting: its keys, each with its default and its valid values.

Every key is optional. Times are in seconds unless the name says otherwise.
"""

# ruff: noqa: RUF009  (the defaults are calls that return dataclass fields)

import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from .errors import ConfigurationError

_MOST = 1e9  # a larger number is a mistake; as seconds it is 31 years
_MOST_BYTES = 2**62  # no system limit can be larger
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


# each returns a field; `expected` in its metadata returns "" for a valid value


def _field(default: Any, expected: Callable[[Any], str]) -> Any:
    return dataclasses.field(default=default, metadata={"expected": expected})


def _valid(default: Any, what: str, accepts: Callable[[Any], bool], or_none: bool = False) -> Any:
    """`what` completes the hint "It must be ...". None is valid if it is the default."""
    or_none = or_none or default is None
    what = f"{what}, or None" if or_none else what
    return _field(default, lambda value: "" if (value is None and or_none) or accepts(value) else what)


def _choice(*words: str) -> Any:
    return _valid(words[0], " or ".join(map(repr, words)), lambda value: value in words)


def _flag(default: bool = False) -> Any:
    return _valid(default, "True or False", lambda value: isinstance(value, bool))


def _whole(default: int | None, least: int, most: float = _MOST, unit: str = "") -> Any:
    what = f"a whole number{unit and f' of {unit}'} from {least} to {most:,.0f}"
    return _valid(default, what, lambda value: is_number(value, int) and least <= value <= most)


def _seconds(default: float | None, least: float, or_none: bool = False) -> Any:
    what = f"a number of seconds from {least:g} to {_MOST:,.0f}"
    return _valid(default, what, lambda value: is_number(value) and least <= value <= _MOST, or_none)


def _function() -> Any:
    return _valid(None, "a function, or its path", lambda value: isinstance(value, str) or callable(value))


def is_number(value: object, kind: Any = (int, float)) -> bool:
    """Tell whether a value is a number of a kind; True and False are not numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def is_interval(value: object) -> bool:
    """Tell whether a value is an interval: from 0.001 to 1e9 seconds, or a timedelta of that length."""
    return is_span(value, 0.001)


def is_span(value: object, least: float = 0) -> bool:
    """Tell whether a value is from `least` to 1e9 seconds, or a timedelta of that length."""
    seconds: Any = value.total_seconds() if isinstance(value, timedelta) else value
    return is_number(seconds) and least <= seconds <= _MOST


def parse_size(written: object) -> int | None:
    """Return a size such as 1048576, "512M" or "1.5G" in bytes; None if it is invalid."""
    if is_number(written, int):
        return written if 0 < written <= _MOST_BYTES else None  # type: ignore[operator,return-value]
    found = _SIZE.fullmatch(written.strip()) if isinstance(written, str) else None
    size = float(found[1]) * _UNITS[found[2].upper()] if found else 0
    return int(size) or None if size <= _MOST_BYTES else None


def _is_memory(value: object) -> bool:
    is_share = isinstance(value, str) and re.fullmatch(r"(100|[1-9]\d?)%", value)
    return bool(is_share) or parse_size(value) is not None


def _are_queues(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and isinstance(limits, dict)
        and limits.keys() <= {"max_concurrency", "soft_time_limit"}
        and all(is_number(limit) and limit > 0 for limit in limits.values())
        and isinstance(limits.get("max_concurrency", 1), int)
        for name, limits in value.items()
    )


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
        if fault := schedule_fault(entry):
            return f"a list of valid schedules: [{number}] {fault}"
    return ""


def schedule_fault(entry: Mapping[Any, Any]) -> str:
    """Return what is wrong with a schedule's entry in SCHEDULES; "" if nothing."""
    for key, item in entry.items():
        if key not in _IN_SCHEDULES:
            return f"has {shown(key)}, which is no key; the keys are {', '.join(_IN_SCHEDULES)}"
        if not isinstance(item, _IN_SCHEDULES[key]):
            return f"has an invalid {key!r}: {shown(item)}"
    if "task" not in entry or ("cron" in entry) == ("every" in entry):
        return 'needs "task", and either "cron" or "every"'
    return "" if is_interval(entry.get("every", 1)) else 'needs "every" to be more than 0 seconds'


#: The entries of the setting ALERT with their defaults.
ALERT: dict[str, Any] = {"TO": "admins", "NO_FOREMAN": 60, "BACKLOG": 300, "FAILURES": (20, 10)}


def _expected_alert(value: object) -> str:
    if not isinstance(value, dict) or not value.keys() <= ALERT.keys():
        return "" if value is None else f"a dict with some of the keys {', '.join(ALERT)}, or None"
    told = ALERT | value
    if not (isinstance(told["TO"], str) or callable(told["TO"])):
        return 'a dict in which "TO" is "admins", a function, or its path'
    for key in ("NO_FOREMAN", "BACKLOG"):
        if told[key] is not None and not (is_number(told[key]) and 1 <= told[key] <= _MOST):
            return f'a dict in which "{key}" is a number of seconds from 1 to {_MOST:,.0f}, or None'
    share = told["FAILURES"]
    is_pair = isinstance(share, (list, tuple)) and len(share) == 2 and all(map(is_number, share))
    if share is not None and not (is_pair and 0 <= share[0] < 100 and 1 <= share[1] <= 10_080):
        return 'a dict in which "FAILURES" is (percent, minutes), such as (20, 10), or None'
    return ""


@dataclasses.dataclass(frozen=True)
class Settings:
    """settings.SNAPPEA with the defaults filled in."""

    #: What runs the tasks: the Foreman, or Celery's workers. Read once, when the app is ready.
    ENGINE: Literal["snappea", "celery"] = _choice("snappea", "celery")
    #: The alias of the queue's database in DATABASES.
    DATABASE: str = _valid("snappea", "a string", lambda value: isinstance(value, str))
    #: How many threads run tasks.
    NUM_WORKERS: int = _whole(4, 1, 10_000)
    #: How long running tasks may continue after the first SIGTERM or SIGINT.
    GRACEFUL_TIMEOUT: float = _seconds(10.0, 0)
    #: Whether the Foreman empties the queue before it stops at the first signal.
    WORKAHOLIC: bool = _flag()
    #: Whether `delay()` runs the task immediately, in the caller, without a queue (for tests).
    TASK_ALWAYS_EAGER: bool = _flag()
    #: Whether, while tests run, `delay()` collects the call in memory for `snappea.testing` or writes a row.
    IN_TESTS: Literal["collect", "write"] = _choice("collect", "write")
    #: "FULL": a call survives a power failure. "NORMAL": only a crash, but ten times faster.
    SYNCHRONOUS: Literal["FULL", "NORMAL"] = _choice("FULL", "NORMAL")
    #: Whether to use inotify for wakeups if available, instead of polling.
    USE_INOTIFY: bool = _flag(True)
    #: How often to poll without inotify.
    POLL_INTERVAL: float = _seconds(0.05, 0.001)
    #: Whether a task's arguments appear in the log.
    LOG_ARGUMENTS: bool = _flag()
    #: Whether each task keeps what it logs while it runs, on its row, unless its option keep_log is False.
    KEEP_LOG: bool = _flag()
    #: How long the row of a succeeded task is kept, without its result, for the lists; 0 or None: not at all.
    KEEP: float | timedelta | None = _valid(
        None, f"a number of seconds from 0 to {_MOST:,.0f}, a timedelta", lambda value: is_span(value)
    )
    #: How often a task with acks_late may be interrupted before it is no longer repeated.
    MAX_INTERRUPTIONS: int = _whole(3, 1)
    #: The maximum size of a call's arguments as JSON. SQLite allows 1 GB per row.
    MAX_ARGUMENT_BYTES: int = _whole(1_048_576, 4, 400_000_000, "bytes")
    #: The maximum size of a kept result as JSON.
    MAX_RESULT_BYTES: int = _whole(10_485_760, 4, 400_000_000, "bytes")
    #: A subclass of json.JSONEncoder, or its path, for arguments and results that are not JSON.
    JSON_ENCODER: type[json.JSONEncoder] | str | None = _valid(
        None,
        "a subclass of json.JSONEncoder, its path",
        lambda value: isinstance(value, str) or hasattr(value, "default"),
    )
    #: The queues besides "default", each with its limits; None: any name is a queue.
    QUEUES: dict[str, dict[str, float]] | None = _valid(
        None, 'a dict such as {"mail": {"max_concurrency": 2}, "reports": {}}', _are_queues
    )
    #: Periodic tasks, besides those with the options cron or every: dicts with the keys of _IN_SCHEDULES.
    SCHEDULES: Sequence[Mapping[str, Any]] = _field((), _expected_schedules)
    #: The soft_time_limit of tasks if neither the task nor its queue sets one; None: no limit.
    SOFT_TIME_LIMIT: float | None = _seconds(None, 0.001)
    #: How many threads may be stuck past their task's limit before the Foreman stops; each is replaced.
    MAX_STUCK_WORKERS: int = _whole(8, 0, 10_000)
    #: How many `async def` tasks run at once, besides those in threads.
    ASYNC_CONCURRENCY: int = _whole(100, 1, 100_000)
    #: How many tasks a thread runs before a new one replaces it; None: no limit.
    MAX_TASKS_PER_THREAD: int | None = _whole(None, 1)
    #: How many tasks the Foreman starts before it restarts, with the same pid; None: no limit.
    MAX_TASKS: int | None = _whole(None, 1)
    #: How much memory the Foreman may use before it restarts; "80%" is of the machine or container.
    MAX_MEMORY: int | str | None = _valid(None, 'a number of bytes, or as in "800M" or "80%"', _is_memory)
    #: On PostgreSQL: how long a Foreman may send no heartbeat before its tasks are interrupted.
    FOREMAN_TIMEOUT: float = _seconds(30.0, 1)
    #: How long to keep the dashboard's statistics, in minutes; 0: not at all.
    STATS_RETENTION_MINUTES: int = _whole(10_080, 0, unit="minutes")
    #: How long the oldest ready task may wait before the admin warns; None: never.
    WARN_BACKLOG_SECONDS: float | None = _seconds(60.0, 0, or_none=True)
    #: A bearer token for health and metrics, in addition to staff with the permission to view tasks.
    MONITORING_TOKEN: str | None = _valid(
        None, "a secret string", lambda value: isinstance(value, str) and bool(value.strip())
    )
    #: Whether health and metrics are public.
    MONITORING_IS_PUBLIC: bool = _flag()
    #: Returns keyword arguments to add to each call that is enqueued.
    HOOK_ADD_TASK_KWARGS: Callable[[], dict[str, Any]] | str | None = _function()
    #: Takes a task's keyword arguments, may remove those the other hook added, returns a context manager.
    HOOK_RUN_TASK_CONTEXT: Callable[[dict[str, Any]], AbstractContextManager[Any]] | str | None = _function()
    #: When to tell that something is wrong, with the keys of the constant ALERT. None: no alerts.
    ALERT: dict[str, Any] | None = _field(None, _expected_alert)
    #: Whether to trace calls and tasks with OpenTelemetry. Read once, when the app is ready.
    OPENTELEMETRY: bool = _flag()


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
#: Keys of Bugsink's Snappea, and what to do instead.
_FORMER = {
    "PID_FILE": "Remove it: a lock beside the database keeps a second Foreman from starting.",
    "WAKEUP_CALLS_DIR": "Remove it: the wakeup file is beside the database, at its NAME with -wakeup.",
    "TASK_QS_LIMIT": "Remove it: the Foreman decides how many tasks it claims at once.",
}


def setting_problems() -> list[tuple[str, str]]:
    """Return what is wrong with the project's SNAPPEA setting, as pairs of message and hint."""
    return problems(getattr(settings, "SNAPPEA", {}))


def problems(configured: object) -> list[tuple[str, str]]:
    """Return what is wrong with a SNAPPEA setting, as pairs of message and hint."""
    if not isinstance(configured, dict):
        return [("SNAPPEA is not a dict.", 'Write SNAPPEA = {"NUM_WORKERS": 8}.')]
    found = []
    for key, value in configured.items():
        if key not in _FIELDS:
            found.append((f"SNAPPEA has an unknown key {shown(key)}.", _did_you_mean(key)))
        elif expected := _FIELDS[key].metadata["expected"](value):
            found.append((f"SNAPPEA[{key!r}] is {shown(value)}.", f"It must be {expected}."))
    return found


def _did_you_mean(key: object) -> str:
    from difflib import get_close_matches  # needed for this error only

    name = key if isinstance(key, str) else ""
    close = get_close_matches(name.upper(), _FIELDS, n=1)
    similar = f"Did you mean {close[0]!r}?" if close else f"The keys are {', '.join(_FIELDS)}."
    return _FORMER.get(name, similar)


def shown(value: object) -> str:
    """Return the repr() of a value, or its type if that fails."""
    try:
        return repr(value)
    except Exception:  # an integer of thousands of digits, or a faulty __repr__
        return f"<{type(value).__name__} that cannot be shown>"


# the settings in force


@functools.cache
def current() -> Settings:
    """Return the current settings: settings.SNAPPEA with the defaults filled in.

    >>> current().NUM_WORKERS
    4

    Raises ConfigurationError for an unknown key or an invalid value.
    """
    configured = getattr(settings, "SNAPPEA", {})
    if wrong := problems(configured):
        raise ConfigurationError("; ".join(f"{message} {hint}" for message, hint in wrong))
    return Settings(**configured)


def _written(key: str) -> Any:
    """Return a configured value, even if other keys are wrong."""
    configured = getattr(settings, "SNAPPEA", {})
    return configured.get(key) if isinstance(configured, dict) else None


def alias() -> str:
    """Return the alias of the queue's database, even if other keys are wrong: the router needs it first."""
    chosen = _written("DATABASE")
    return chosen if isinstance(chosen, str) else Settings.DATABASE


def uses_celery() -> bool:
    """Tell whether Celery's workers run the tasks, even if other keys are wrong."""
    return bool(_written("ENGINE") == "celery")


def is_on(key: str) -> bool:
    """Tell whether OPENTELEMETRY or ALERT is set, even if other keys are wrong. They are not for Celery."""
    return _written(key) not in (None, False) and not uses_celery()


def collects() -> bool:
    """Tell whether calls are collected in memory: while tests run, unless IN_TESTS is "write"."""
    return tests_run() and current().IN_TESTS == "collect"


def tests_run() -> bool:
    """Tell whether this process runs tests, from setup_test_environment() on."""
    utils = sys.modules.get("django.test.utils")  # rarely loaded in a process that runs no tests
    return utils is not None and "saved_data" in vars(utils._TestState)


def declared_queues() -> list[str] | None:
    """Return the names of the queues; None: any name is a queue."""
    queues = current().QUEUES
    return None if queues is None else list(dict.fromkeys(("default", *queues)))


def queue_limits() -> dict[str, int]:
    """Return how many tasks of a queue may run at a time, for the queues that have a limit."""
    limits = {name: options.get("max_concurrency") for name, options in (current().QUEUES or {}).items()}
    return {name: int(limit) for name, limit in limits.items() if limit is not None}


def soft_time_limit_of(queue: str) -> float | None:
    """Return the soft time limit of a queue's tasks that set none themselves."""
    settings = current()
    limit = settings.QUEUES.get(queue, {}).get("soft_time_limit") if settings.QUEUES else None
    return settings.SOFT_TIME_LIMIT if limit is None else limit


Hook: TypeAlias = Literal["HOOK_ADD_TASK_KWARGS", "HOOK_RUN_TASK_CONTEXT"]
HOOKS: tuple[Hook, ...] = get_args(Hook)
#: What an adapter makes of a hook, which is None if the project has none.
wrappers: dict[Hook, Callable[[Callable[..., Any] | None], Callable[..., Any]]] = {}


@functools.cache
def hook(name: Hook) -> Callable[..., Any] | None:
    """Return the function of a hook; None if there is none. Raises ConfigurationError."""
    found = _imported(name, lambda found: found)
    return wrappers[name](found) if name in wrappers else found


@functools.cache
def json_default() -> Callable[[Any], Any] | None:
    """Return the default() of JSON_ENCODER; None if there is none. Raises ConfigurationError."""
    return _imported("JSON_ENCODER", lambda kind: kind().default)


def _imported(key: str, use: Callable[[Any], Any]) -> Callable[..., Any] | None:
    value = getattr(current(), key)
    if value is None:
        return None
    try:
        found: Callable[..., Any] = use(import_string(value) if isinstance(value, str) else value)
        return found
    except (ImportError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"SNAPPEA[{key!r}] is {value!r}: {error}") from error


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "SNAPPEA":
        current.cache_clear()
        hook.cache_clear()
        json_default.cache_clear()
