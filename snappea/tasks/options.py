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

from ..conf import is_interval, parse_size, shown
from ..errors import Retry, TaskDefinitionError
from ..queue.clock import as_text, seconds_until

Exceptions = tuple[type[BaseException], ...]
_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: The longest name of a task, in characters.
MOST_NAME = 255
#: A larger number is a mistake or cannot be stored; in seconds it is 31 years.
MOST = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a task is run. Times are in seconds."""

    #: The name of the task; "module.function" by default.
    name: str = ""
    #: The queue.
    queue: str = "default"
    #: From -100 to 100, higher first.
    priority: int = 0
    #: Run the task again if the Foreman dies while it runs: the task is safe to repeat.
    acks_late: bool = False
    #: How long a call may wait before it is dropped; a timedelta works, too.
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
    #: Enqueue nothing while an identical call waits (True), or waits or runs ("running").
    unique: bool | Literal["running"] = False
    #: How many calls of the task run at the same time.
    max_concurrency: int | None = None
    #: A function of the arguments: `max_concurrency` applies to each value that it returns.
    concurrency_key: Callable[..., Any] | None = None
    #: How often the task starts, at even intervals: "10/s", "10/m" or "10/h".
    rate_limit: str | None = None
    #: How long the result is kept; None: the row is deleted when the task succeeds.
    result_ttl: float | None = None
    #: When to raise SoftTimeLimitExceeded in the task; None: the limit of its queue, or the setting.
    soft_time_limit: float | None = None
    #: When to kill the task. It then runs in a process of its own.
    time_limit: float | None = None
    #: Run the task in a process of its own, so that a crash does not affect the Foreman.
    isolate: bool = False
    #: How much memory the task may use: bytes, or as in "512M". It then runs in a process of its own.
    max_memory: int | str | None = None
    #: Retry the task if its process is killed or crashes.
    retry_on_kill: bool = False
    #: Hide its arguments, result and exception messages in the log and the admin.
    sensitive: bool = False
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
        for message, is_met in _RULES.items():
            if not is_met(options):
                try:
                    wrong = message.format_map(vars(options))
                except ValueError as error:  # Python does not show an integer of thousands of digits
                    wrong = f"an option cannot be read: {error}"
                raise TaskDefinitionError(f"{name if isinstance(name, str) else shown(name)}: {wrong}.")
        return options

    @cached_property
    def is_isolated(self) -> bool:
        """Whether the task runs in a process of its own."""
        return self.isolate or self.time_limit is not None or self.max_memory is not None

    @cached_property
    def interval(self) -> float | None:
        """The seconds between two starts, from `rate_limit`."""
        found = _RATE.fullmatch(self.rate_limit or "")
        return _SECONDS[found[2]] / float(found[1]) if found and float(found[1]) else None

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


def _is_text(value: object, most: int = MOST_NAME) -> bool:
    if not isinstance(value, str) or not issubclass(type(value), str) or not 0 < len(value) <= most:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(value: Any, kind: Any = (int, float)) -> bool:
    # isinstance() would accept a lazy object, which no row can hold
    return issubclass(type(value), kind) and not isinstance(value, bool) and value >= 0


def _is_limit(value: Any) -> bool:
    return value is None or (is_seconds(value) and value > 0)


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(item, type) and issubclass(item, BaseException) for item in value
    )


def _are_flags(*values: object) -> bool:
    return all(isinstance(value, bool) for value in values)


_AND_MOST = f"at most {MOST:,.0f}"
#: The message if a rule is broken, and the rule. Only the first broken rule is reported.
_RULES: dict[str, Callable[[Options], bool]] = {
    "the name of a task is a string of at most 255 characters": lambda o: _is_text(o.name),
    "queue={queue!r} must be a string of 1 to 100 characters": lambda o: is_queue(o.queue),
    "priority={priority!r} must be from -100 to 100": lambda o: is_priority(o.priority),
    "acks_late={acks_late!r} must be True or False": lambda o: _are_flags(o.acks_late),
    "expires={expires!r} must be a number of seconds or a timedelta": lambda o: (
        o.expires is None
        or _is_number(o.expires)
        or (isinstance(o.expires, timedelta) and o.expires >= timedelta())
    ),
    "autoretry_for and dont_autoretry_for must be tuples of exceptions": lambda o: (
        _are_exceptions(o.autoretry_for) and _are_exceptions(o.dont_autoretry_for)
    ),
    "max_retries={max_retries!r} must be a whole number, or None for no limit": lambda o: (
        o.max_retries is None or _is_number(o.max_retries, int)
    ),
    f"default_retry_delay, retry_backoff and retry_backoff_max are numbers of seconds, {_AND_MOST}": (
        lambda o: (
            is_seconds(o.default_retry_delay)
            and is_seconds(o.retry_backoff_max)
            and (isinstance(o.retry_backoff, bool) or is_seconds(o.retry_backoff))
        )
    ),
    "retry_backoff_factor={retry_backoff_factor!r} must be a number from 1 to 1,000": lambda o: (
        _is_number(o.retry_backoff_factor) and 1 <= o.retry_backoff_factor <= 1000
    ),
    "retry_jitter={retry_jitter!r} must be True or False": lambda o: _are_flags(o.retry_jitter),
    'unique={unique!r} must be True, False or "running"': lambda o: (
        isinstance(o.unique, bool) or o.unique == "running"
    ),
    f"max_concurrency={{max_concurrency!r}} must be a whole number of at least 1 and {_AND_MOST}": lambda o: (
        o.max_concurrency is None or (_is_number(o.max_concurrency, int) and 1 <= o.max_concurrency <= MOST)
    ),
    "concurrency_key={concurrency_key!r} must be a function of the arguments": lambda o: (
        o.concurrency_key is None or callable(o.concurrency_key)
    ),
    "concurrency_key must not be `async def`: delay() calls it": lambda o: (
        not iscoroutinefunction(o.concurrency_key)
    ),
    "concurrency_key needs max_concurrency as well": lambda o: (
        o.concurrency_key is None or o.max_concurrency is not None
    ),
    "rate_limit applies to the whole task, and cannot be combined with concurrency_key": lambda o: (
        o.concurrency_key is None or o.rate_limit is None
    ),
    'rate_limit={rate_limit!r} must be a number and a unit, as in "10/m" (s, m or h)': lambda o: (
        o.rate_limit is None
        or (isinstance(o.rate_limit, str) and o.interval is not None and 1e-6 <= o.interval <= MOST)
    ),
    f"result_ttl={{result_ttl!r}} must be a number of seconds, {_AND_MOST}": lambda o: (
        o.result_ttl is None or is_seconds(o.result_ttl)
    ),
    "sensitive={sensitive!r} must be True or False": lambda o: _are_flags(o.sensitive),
    "aliases={aliases!r} must be a list of names": lambda o: (
        isinstance(o.aliases, (list, tuple)) and all(map(_is_text, o.aliases))
    ),
    "soft_time_limit={soft_time_limit!r} and time_limit={time_limit!r} must be more than 0 seconds "
    f"and {_AND_MOST}": lambda o: _is_limit(o.soft_time_limit) and _is_limit(o.time_limit),
    "soft_time_limit={soft_time_limit!r} must be below time_limit={time_limit!r}, which ends it first": (
        lambda o: o.soft_time_limit is None or o.time_limit is None or o.soft_time_limit < o.time_limit
    ),
    'max_memory={max_memory!r} must be a number of bytes, or as in "512M"': lambda o: (
        o.max_memory is None or parse_size(o.max_memory) is not None
    ),
    "isolate and retry_on_kill must be True or False": lambda o: _are_flags(o.isolate, o.retry_on_kill),
    "retry_on_kill needs a process of its own: add time_limit, isolate or max_memory": lambda o: (
        not o.retry_on_kill or o.is_isolated
    ),
    "give cron or every, not both": lambda o: o.cron is None or o.every is None,
    "cron={cron!r} must be a string": lambda o: o.cron is None or isinstance(o.cron, str),
    "every={every!r} must be more than 0 seconds, or a timedelta": lambda o: (
        o.every is None or is_interval(o.every)
    ),
    "timezone={timezone!r} must be the name of a time zone, and needs cron": lambda o: (
        o.timezone is None or (isinstance(o.timezone, str) and o.cron is not None)
    ),
    "catch_up={catch_up!r} must be True or False": lambda o: _are_flags(o.catch_up),
}
