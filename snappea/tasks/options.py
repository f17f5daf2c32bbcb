"""The options of @task: names, types, defaults, and the rules for their values.

`Options` is the only list of them. The types of @task's arguments and the django.tasks backend follow it.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal

from asgiref.sync import iscoroutinefunction

from ..conf import is_interval, is_span, parse_size, shown
from ..errors import Retry, TaskDefinitionError
from ..queue.clock import as_text, seconds_of, seconds_until
from ..queue.records import UniqueRule

Exceptions = tuple[type[BaseException], ...]
_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])(?: burst (\d{1,9}))?")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: The longest name of a task, in characters.
MOST_NAME = 255
#: A larger number is a mistake or cannot be stored; in seconds it is 31 years.
MOST = 1e9
TAGS = "strings of 1 to 50 characters without spaces, at most 20"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `@task`. Times are in seconds.

    >>> @task(queue="mail", autoretry_for=(OSError,), max_concurrency=1)
    ... def send_mail(user_id: int) -> None: ...
    """

    #: The name of the task; "module.function" by default.
    name: str = ""
    #: The queue that its calls wait in.
    queue: str = "default"
    #: From -100 to 100, higher first.
    priority: int = 0
    #: Run the task again if the Foreman dies while it runs: the task is safe to repeat.
    acks_late: bool = False
    #: How long a call may wait before it is deleted: seconds or a timedelta.
    expires: float | timedelta | None = None
    #: Exceptions after which the task is retried.
    autoretry_for: Exceptions = ()
    #: Exceptions that are excluded from `autoretry_for`.
    dont_autoretry_for: Exceptions = ()
    #: How often the task is retried; None: no limit.
    max_retries: int | None = 3
    #: The delay before a retry.
    default_retry_delay: float = 180
    #: The delay before the first retry (True: 1 s); it grows by `retry_backoff_factor` each time.
    retry_backoff: bool | float = False
    #: The longest delay with `retry_backoff`.
    retry_backoff_max: float = 600
    #: The factor by which the delay grows: 2 doubles it, 1 keeps it.
    retry_backoff_factor: float = 2
    #: Use a random part of the backoff, so that tasks that failed together are not retried together.
    retry_jitter: bool = True
    #: Enqueue nothing while an identical call waits (True), or waits or runs ("running"). With a function of
    #: the arguments, calls for which it returns the same value are identical.
    unique: bool | Literal["running"] | Callable[..., Any] = False
    #: Enqueue nothing for so long after an identical call was enqueued, even if it has ended: seconds or a
    #: timedelta. Includes `unique`.
    unique_for: float | timedelta | None = None
    #: What happens to a call if an identical one was enqueued: it is discarded; it replaces the arguments and
    #: the time of the one that waits; or it raises AlreadyEnqueued.
    on_conflict: Literal["discard", "replace", "raise"] = "discard"
    #: Start so long after the last of identical calls: seconds or a timedelta. Includes `unique`.
    debounce: float | timedelta | None = None
    #: Start so long after the first of them at the latest: seconds or a timedelta.
    debounce_max: float | timedelta | None = None
    #: Enqueue one of identical calls in each such time: seconds or a timedelta. The same as `unique_for`.
    throttle: float | timedelta | None = None
    #: How many calls of the task run at the same time. `delay()` calls a function of the arguments.
    max_concurrency: int | Callable[..., int | None] | None = None
    #: A function of the arguments: the limits apply to each value that it returns.
    concurrency_key: Callable[..., Any] | None = None
    #: A function of the arguments: the values that it returns, such as tenants, take turns in the queue.
    fair_by: Callable[..., Any] | None = None
    #: How often the task starts, at even intervals: "10/s", "10/m" or "10/h". With "10/m burst 5", up to 5
    #: start at once after a pause. `delay()` calls a function of the arguments.
    rate_limit: str | Callable[..., str | None] | None = None
    #: What happens to a call that may not start at once because of these limits: it waits, or it is deleted.
    on_limit: Literal["wait", "discard"] = "wait"
    #: How long the result is kept; None: the row is deleted when the task succeeds.
    result_ttl: float | None = None
    #: How long the row is kept after the task succeeded, without a result: seconds or a timedelta; None: as
    #: the setting KEEP says.
    keep: float | timedelta | None = None
    #: Words to find its calls by: strings without spaces.
    tags: Sequence[str] = ()
    #: After how long SoftTimeLimitExceeded is raised in it; None: the limit of its queue, or the setting.
    soft_time_limit: float | None = None
    #: After how long the task is killed. It then runs in its own process.
    time_limit: float | None = None
    #: Run the task in its own process, so that a crash does not affect the Foreman.
    isolate: bool = False
    #: How much memory the task may use: bytes, or as in "512M". It then runs in its own process.
    max_memory: int | str | None = None
    #: Retry the task if its process is killed or crashes.
    retry_on_kill: bool = False
    #: Hide its arguments, result and exception messages in the log and the admin.
    sensitive: bool = False
    #: Keep what the task logs while it runs, on its row; None: as the setting KEEP_LOG says.
    keep_log: bool | None = None
    #: Earlier names of the task, which waiting rows may still have.
    aliases: Sequence[str] = ()
    #: When to enqueue the task: a cron expression.
    cron: str | None = None
    #: How often to enqueue the task: seconds or a timedelta.
    every: float | timedelta | None = None
    #: The time zone of `cron`; None: settings.TIME_ZONE.
    timezone: str | None = None
    #: Enqueue the task once for runs that were missed while no Foreman ran.
    catch_up: bool = True
    #: Let users add schedules for the task at run time.
    schedulable: bool = False
    #: Pass the task itself to the function as its first argument, usually `self`, as in Celery.
    bind: bool = False
    #: Celery's option. True, as without it: keep no result. False needs `result_ttl`.
    ignore_result: bool | None = None
    #: Celery's option, without an effect: a running task always has the status `running`.
    track_started: bool | None = None
    #: django-taskq's dict for `max_retries` and (as `countdown`) `default_retry_delay`.
    retry_kwargs: dataclasses.InitVar[Mapping[str, Any] | None] = None

    @classmethod
    def of(cls, name: str, written: dict[str, Any]) -> "Options":
        """Return the options of a task from the arguments of @task. Raises TaskDefinitionError."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in written:
            if key not in known:
                from . import foreign  # needed for this error only

                hint = foreign.instead(key, foreign.TASK_OPTIONS, known)
                raise TaskDefinitionError(f"{name}: @task has no option {key!r}; {hint}")
        for key in {"autoretry_for", "dont_autoretry_for"} & written.keys():
            if isinstance(written[key], list):
                written = {**written, key: tuple(written[key])}
        options = cls(**{**written, "name": name})
        task = name if isinstance(name, str) else shown(name)
        for field in dataclasses.fields(cls):
            value, (expected, is_valid) = getattr(options, field.name), _VALUES[field.name]
            if not (value is None and field.default is None) and not is_valid(value):
                raise TaskDefinitionError(f"{task}: {field.name}={shown(value)} must be {expected}.")
        for message, is_met in _COMBINATIONS.items():
            if not is_met(options):
                raise TaskDefinitionError(f"{task}: {message.format_map(vars(options))}.")
        return options

    @cached_property
    def is_isolated(self) -> bool:
        """Whether the task runs in a process of its own."""
        return self.isolate or self.time_limit is not None or self.max_memory is not None

    @cached_property
    def is_plain(self) -> bool:
        """Whether its calls set no columns of `Extras`."""
        special = (self.expires, self.max_concurrency, self.rate_limit, self.result_ttl, self.fair_by)
        return special == (None,) * 5 and not (self.is_unique or self.sensitive or self.tags or self.keep)

    @cached_property
    def is_limited(self) -> bool:
        """Whether the task has limits of its own."""
        return self.max_concurrency is not None or self.rate_limit is not None

    @cached_property
    def is_unique(self) -> bool:
        """Whether identical calls count as one."""
        return bool(self.unique) or self.unique_rule is not None

    @cached_property
    def unique_rule(self) -> UniqueRule | None:
        """What decides about identical calls in addition to `unique`."""
        span = self.throttle if self.unique_for is None else self.unique_for
        on_conflict = self.on_conflict if self.debounce is None else "replace"
        if span is None and on_conflict == "discard":
            return None
        latest = None if self.debounce_max is None else seconds_of(self.debounce_max, "debounce_max")
        return UniqueRule(None if span is None else seconds_of(span, "unique_for"), on_conflict, latest)

    def retry_after(self, failure: BaseException, retries: int) -> float | None:
        """Return in how many seconds to retry a task; None if it has failed. `retries`: how many so far."""
        limit, wait = self.max_retries, None
        if isinstance(failure, Retry):
            limit = limit if failure.max_retries is None else failure.max_retries
            wait = failure.countdown
            if failure.eta is not None:
                wait = max(0.0, seconds_until(as_text(failure.eta)))
        elif not isinstance(failure, self.autoretry_for) or isinstance(failure, self.dont_autoretry_for):
            return None
        if limit is not None and retries >= limit:
            return None
        return self.retry_delay(retries) if wait is None else wait

    def retry_delay(self, retries: int) -> float:
        """Return the seconds before the next retry."""
        if not self.retry_backoff:
            return self.default_retry_delay
        try:
            grown = float(self.retry_backoff) * float(self.retry_backoff_factor) ** retries
        except OverflowError:
            grown = self.retry_backoff_max
        delay: float = min(self.retry_backoff_max, grown)
        return random.uniform(0, delay) if self.retry_jitter else delay


def is_priority(value: object) -> bool:
    """Tell whether a value can be a priority."""
    return type(value) is int and -100 <= value <= 100


def is_queue(value: object) -> bool:
    """Tell whether a value can be the name of a queue."""
    return _is_text(value, 100)


def is_seconds(value: Any) -> bool:
    """Tell whether a value is a number of seconds that a row can hold."""
    return _is_number(value) and value <= MOST


def are_tags(value: object) -> bool:
    """Tell whether a value is a list of at most 20 tags: strings of up to 50 characters, without spaces."""
    return isinstance(value, (list, tuple)) and len(value) <= 20 and all(map(_is_tag, value))


def _is_tag(value: object) -> bool:
    return _is_text(value, 50) and str(value).isprintable() and not re.search(r"\s", str(value))


def _is_text(value: object, most: int = MOST_NAME) -> bool:
    if not isinstance(value, str) or not issubclass(type(value), str) or not 0 < len(value) <= most:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(value: Any, kind: Any = (int, float)) -> bool:
    # isinstance() would accept a lazy object, which no row can hold
    return issubclass(type(value), kind) and not isinstance(value, bool) and value >= 0


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(item, type) and issubclass(item, BaseException) for item in value
    )


def _is_rate(value: object) -> bool:
    interval, burst = rate_of(value) if isinstance(value, str) else (None, None)
    return interval is not None and 1e-6 <= interval <= MOST and burst != 0


def fault_of_limit(option: str, value: Any) -> str:
    """Return why a value cannot be the limit of a call, after the words "it is"; "" if it can."""
    expected, is_valid = _VALUES[option]
    if value is None or (is_valid(value) and not callable(value)):
        return ""
    return f"{shown(value)}; it must be {expected}, or None"


def rate_of(rate: str | None) -> tuple[float | None, int | None]:
    """Return the seconds between two starts, and how many starts there may be at once; None for no limit."""
    found = _RATE.fullmatch(rate or "")
    if found is None or not float(found[1]):
        return None, None
    return _SECONDS[found[2]] / float(found[1]), int(found[3]) if found[3] else None


def rate_text(interval: float, burst: int | None) -> str:
    """Return a rate as `rate_limit` has it."""
    numbers = {unit: round(seconds / interval, 6) for unit, seconds in _SECONDS.items()}
    unit = next((unit for unit, number in numbers.items() if number.is_integer() and number), "h")
    return f"{numbers[unit]:.12g}/{unit}{f' burst {burst}' if burst else ''}"


_FLAG = ("True or False", _is_flag)
_DELAY = (f"a number of seconds, at most {MOST:,.0f}", is_seconds)
_LIMIT = (f"more than 0 seconds, and at most {MOST:,.0f}", lambda v: is_seconds(v) and v > 0)
_SPAN = ("more than 0 seconds, or a timedelta", is_interval)
_EXCEPTIONS = ("a tuple of exceptions", _are_exceptions)
#: What each value must be, and the check. None is valid where it is the default.
_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": (f"a string of 1 to {MOST_NAME} characters", _is_text),
    "queue": ("a string of 1 to 100 characters", is_queue),
    "priority": ("from -100 to 100", is_priority),
    "acks_late": _FLAG,
    "expires": (
        "a number of seconds or a timedelta",
        lambda v: v >= timedelta() if isinstance(v, timedelta) else _is_number(v),
    ),
    "autoretry_for": _EXCEPTIONS,
    "dont_autoretry_for": _EXCEPTIONS,
    "max_retries": ("a whole number, or None for no limit", lambda v: v is None or _is_number(v, int)),
    "default_retry_delay": _DELAY,
    "retry_backoff": (f"True, False or {_DELAY[0]}", lambda v: _is_flag(v) or is_seconds(v)),
    "retry_backoff_max": _DELAY,
    "retry_backoff_factor": ("a number from 1 to 1,000", lambda v: _is_number(v) and 1 <= v <= 1000),
    "retry_jitter": _FLAG,
    "unique": (
        'True, False, "running" or a function of the arguments',
        lambda v: _is_flag(v) or v == "running" or callable(v),
    ),
    "unique_for": _SPAN,
    "on_conflict": ('"discard", "replace" or "raise"', lambda v: v in ("discard", "replace", "raise")),
    "debounce": _SPAN,
    "debounce_max": _SPAN,
    "throttle": _SPAN,
    "max_concurrency": (
        f"a whole number of at least 1 and at most {MOST:,.0f}",
        lambda v: callable(v) or (_is_number(v, int) and 1 <= v <= MOST),
    ),
    "concurrency_key": ("a function of the arguments", callable),
    "fair_by": ("a function of the arguments", callable),
    "rate_limit": (
        'a number and a unit, as in "10/m" (s, m or h) or "10/m burst 5"; instead of two rates, such as 10/s '
        'and 1000/h, write "1000/h burst 10"',
        lambda v: callable(v) or _is_rate(v),
    ),
    "on_limit": ('"wait" or "discard"', lambda v: v in ("wait", "discard")),
    "result_ttl": _DELAY,
    "keep": (f"{_DELAY[0]}, or a timedelta", is_span),
    "tags": (f"a list of {TAGS}", are_tags),
    "soft_time_limit": _LIMIT,
    "time_limit": _LIMIT,
    "isolate": _FLAG,
    "max_memory": ('a number of bytes, or as in "512M"', lambda v: parse_size(v) is not None),
    "retry_on_kill": _FLAG,
    "sensitive": _FLAG,
    "keep_log": _FLAG,
    "aliases": ("a list of names", lambda v: isinstance(v, (list, tuple)) and all(map(_is_text, v))),
    "cron": ("a string", lambda v: isinstance(v, str)),
    "every": _SPAN,
    "timezone": ("the name of a time zone", lambda v: isinstance(v, str)),
    "catch_up": _FLAG,
    "schedulable": _FLAG,
    "bind": _FLAG,
    "ignore_result": _FLAG,
    "track_started": _FLAG,
}
#: Rules for options that depend on each other, checked last. Only the first broken rule is reported.
_COMBINATIONS: dict[str, Callable[[Options], bool]] = {
    **{
        # mypy infers no lambda with a default
        f"{name} must not be `async def`: delay() calls it": lambda o, name=name: (  # type: ignore[misc]
            not iscoroutinefunction(getattr(o, name))
        )
        for name in ("unique", "concurrency_key", "fair_by", "max_concurrency", "rate_limit")
    },
    "give one of unique_for, debounce and throttle": lambda o: (
        sum(value is not None for value in (o.unique_for, o.debounce, o.throttle)) < 2
    ),
    "debounce_max needs debounce": lambda o: o.debounce_max is None or o.debounce is not None,
    "on_conflict={on_conflict!r} needs unique, unique_for or throttle": lambda o: (
        o.on_conflict == "discard" or any((o.unique, o.unique_for, o.throttle, o.debounce))
    ),
    'a call cannot replace another one with unique_for, throttle or unique="running"': lambda o: (
        "replace" not in (o.unique_rule or ())
        or (not o.unique_for and not o.throttle and o.unique != "running")
    ),
    "debounce replaces the call that waits: remove on_conflict={on_conflict!r}": lambda o: (
        o.debounce is None or o.on_conflict != "raise"
    ),
    "on_limit needs max_concurrency or rate_limit": lambda o: o.on_limit == "wait" or o.is_limited,
    "concurrency_key needs max_concurrency or rate_limit": lambda o: (
        o.concurrency_key is None or o.is_limited
    ),
    "soft_time_limit={soft_time_limit!r} must be below time_limit={time_limit!r}": lambda o: (
        o.soft_time_limit is None or o.time_limit is None or o.soft_time_limit < o.time_limit
    ),
    "retry_on_kill needs a process of its own: add time_limit, isolate or max_memory": lambda o: (
        not o.retry_on_kill or o.is_isolated
    ),
    "ignore_result=True keeps no result, and result_ttl={result_ttl!r} does: remove one": lambda o: (
        not o.ignore_result or o.result_ttl is None
    ),
    "ignore_result=False needs result_ttl, in seconds, to keep results": lambda o: (
        o.ignore_result is not False or o.result_ttl is not None
    ),
    "give cron or every, not both": lambda o: o.cron is None or o.every is None,
    "timezone needs cron": lambda o: o.timezone is None or o.cron is not None,
}
