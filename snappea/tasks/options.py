"""The options of @task: their names, their defaults, and what is wrong with what was written."""

import dataclasses
import random
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, TypedDict

from asgiref.sync import iscoroutinefunction

from ..conf import is_interval, parse_size, shown
from ..errors import TaskDefinitionError

Exceptions = tuple[type[BaseException], ...]
_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


#: The longest name of a task, in characters.
MOST_NAME = 255
#: A larger number is a mistake, or cannot be stored; as seconds it is 31 years.
MOST = 1e9
_MOST = f", at most {MOST:,.0f}"
_AND_MOST = f" and at most {MOST:,.0f}"


class TaskOptions(TypedDict, total=False):
    """What @task takes; see `Options` for the meanings."""

    name: str
    queue: str
    priority: int
    acks_late: bool
    expires: float | timedelta | None
    autoretry_for: Exceptions
    dont_autoretry_for: Exceptions
    max_retries: int | None
    default_retry_delay: float
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_backoff_factor: float
    retry_jitter: bool
    unique: bool | Literal["running"]
    max_concurrency: int | None
    concurrency_key: Callable[..., Any] | None
    rate_limit: str | None
    result_ttl: float | None
    soft_time_limit: float | None
    time_limit: float | None
    isolate: bool
    max_memory: int | str | None
    retry_on_kill: bool
    sensitive: bool
    aliases: Sequence[str]
    cron: str | None
    every: float | timedelta | None
    timezone: str | None
    catch_up: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a task is to be run. Times are in seconds."""

    #: What its rows are called; "module.function" if not given.
    name: str = ""
    #: The label on its rows.
    queue: str = "default"
    #: From -100 to 100, higher first.
    priority: int = 0
    #: It may safely be repeated: if the Foreman dies in the middle it runs again.
    acks_late: bool = False
    #: After how long a call that still waits is not worth running any more; also a timedelta.
    expires: float | timedelta | None = None
    #: Exceptions after which it is tried again.
    autoretry_for: Exceptions = ()
    #: Exceptions among those after which it is not.
    dont_autoretry_for: Exceptions = ()
    #: How often it is tried again; None: without end.
    max_retries: int | None = 3
    #: How long to wait before that.
    default_retry_delay: float = 180
    #: Wait this long (True: 1 s) the first time, and `retry_backoff_factor` times as long each time after.
    retry_backoff: bool | float = False
    #: But not longer than this.
    retry_backoff_max: float = 600
    #: By how much the wait grows each time: 2 doubles it, 1 leaves it as it is.
    retry_backoff_factor: float = 2
    #: Wait a random part of the backoff, so that what failed together does not come back together.
    retry_jitter: bool = True
    #: True: `delay()` writes nothing while an identical call waits; "running": or runs.
    unique: bool | Literal["running"] = False
    #: How many of it run at a time, in all.
    max_concurrency: int | None = None
    #: Called with a call's arguments: `max_concurrency` is for each of its values.
    concurrency_key: Callable[..., Any] | None = None
    #: How often it is started: "10/s", "10/m" or "10/h", at even distances.
    rate_limit: str | None = None
    #: How long its result is kept; None: not at all, and the row goes when it has succeeded.
    result_ttl: float | None = None
    #: After how long SoftTimeLimitExceeded is raised inside it; None: as its queue or the setting says.
    soft_time_limit: float | None = None
    #: After how long it is killed; it runs in a process of its own then.
    time_limit: float | None = None
    #: Run it in a process of its own, whatever happens to which does not touch the Foreman.
    isolate: bool = False
    #: How much memory it may have, in bytes or as in "512M"; it runs in a process of its own then.
    max_memory: int | str | None = None
    #: It is tried again when its process was killed or died.
    retry_on_kill: bool = False
    #: Its arguments, its result and what its exceptions say are shown neither in the log nor in the admin.
    sensitive: bool = False
    #: Names under which its rows may still wait from before it was renamed.
    aliases: Sequence[str] = ()
    #: When it is enqueued by itself: a cron expression.
    cron: str | None = None
    #: Or how many seconds after the last time; also a timedelta.
    every: float | timedelta | None = None
    #: The time zone of `cron`; None: settings.TIME_ZONE.
    timezone: str | None = None
    #: Whether it is enqueued once for what was missed while there was no Foreman.
    catch_up: bool = True

    @classmethod
    def of(cls, name: str, written: dict[str, Any]) -> "Options":
        """Return the options of a task as they were written. Raises TaskDefinitionError."""
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
        try:
            problems = options._problems()
        except ValueError as error:  # of an integer of thousands of digits, which Python does not show
            problems = [f"an option cannot be read: {error}"]
        for wrong in problems:
            raise TaskDefinitionError(f"{name if isinstance(name, str) else shown(name)}: {wrong}.")
        return options

    def _problems(self) -> list[str]:
        ttl = self.result_ttl
        rules = {
            "the name of a task is a string of at most 255 characters": _is_text(self.name, MOST_NAME),
            f"queue={self.queue!r} must be a string of 1 to 100 characters": is_queue(self.queue),
            f"priority={self.priority!r} must be from -100 to 100": is_priority(self.priority),
            f"acks_late={self.acks_late!r} must be True or False": isinstance(self.acks_late, bool),
            f"expires={self.expires!r} must be a number of seconds or a timedelta": (
                self.expires is None
                or _is_number(self.expires)
                or (isinstance(self.expires, timedelta) and self.expires >= timedelta())
            ),
            **self._rules_of_retries(),
            f'unique={self.unique!r} must be True, False or "running"': (
                isinstance(self.unique, bool) or self.unique == "running"
            ),
            **self._rules_of_lanes(),
            f"result_ttl={ttl!r} must be a number of seconds{_MOST}": ttl is None or is_seconds(ttl),
            f"sensitive={self.sensitive!r} must be True or False": isinstance(self.sensitive, bool),
            f"aliases={self.aliases!r} must be a list of names": _are_names(self.aliases),
            **self._rules_of_limits(),
            **self._rules_of_schedules(),
        }
        return [message for message, is_kept in rules.items() if not is_kept]

    def _rules_of_retries(self) -> dict[str, bool]:
        return {
            "autoretry_for and dont_autoretry_for must be tuples of exceptions": (
                _are_exceptions(self.autoretry_for) and _are_exceptions(self.dont_autoretry_for)
            ),
            f"max_retries={self.max_retries!r} must be a whole number, or None for no end": (
                self.max_retries is None or (_is_number(self.max_retries, int))
            ),
            f"default_retry_delay, retry_backoff and retry_backoff_max are numbers of seconds{_MOST}": (
                is_seconds(self.default_retry_delay)
                and is_seconds(self.retry_backoff_max)
                and (isinstance(self.retry_backoff, bool) or is_seconds(self.retry_backoff))
            ),
            f"retry_backoff_factor={self.retry_backoff_factor!r} must be a number from 1 to 1,000": (
                _is_number(self.retry_backoff_factor) and 1 <= self.retry_backoff_factor <= 1000
            ),
            f"retry_jitter={self.retry_jitter!r} must be True or False": isinstance(self.retry_jitter, bool),
        }

    def _rules_of_lanes(self) -> dict[str, bool]:
        limit, rate = self.max_concurrency, self.rate_limit
        return {
            f"max_concurrency={limit!r} must be a whole number of at least 1{_AND_MOST}": (
                limit is None or (_is_number(limit, int) and 1 <= limit <= MOST)
            ),
            f"concurrency_key={self.concurrency_key!r} must be a function of the arguments": (
                self.concurrency_key is None or callable(self.concurrency_key)
            ),
            "concurrency_key must not be `async def`: it is called by delay()": (
                not iscoroutinefunction(self.concurrency_key)
            ),
            "concurrency_key says what max_concurrency is counted by: give that as well": (
                self.concurrency_key is None or limit is not None
            ),
            "rate_limit is for the whole task, and cannot be combined with concurrency_key": (
                self.concurrency_key is None or rate is None
            ),
            f'rate_limit={rate!r} must be a number and a unit, as in "10/m" (s, m or h)': (
                rate is None
                or (isinstance(rate, str) and self.interval is not None and 1e-6 <= self.interval <= MOST)
            ),
        }

    def _rules_of_limits(self) -> dict[str, bool]:
        soft, hard = self.soft_time_limit, self.time_limit
        are_numbers = all(limit is None or (is_seconds(limit) and limit > 0) for limit in (soft, hard))
        return {
            f"soft_time_limit={soft!r} and time_limit={hard!r} must be more than 0 seconds{_AND_MOST}": (
                are_numbers
            ),
            f"soft_time_limit={soft!r} must be below time_limit={hard!r}, which would end it before": (
                not are_numbers or soft is None or hard is None or soft < hard
            ),
            f'max_memory={self.max_memory!r} must be a number of bytes, or as in "512M"': (
                self.max_memory is None or parse_size(self.max_memory) is not None
            ),
            "isolate and retry_on_kill must be True or False": (
                isinstance(self.isolate, bool) and isinstance(self.retry_on_kill, bool)
            ),
            "retry_on_kill is for a process of its own: give time_limit, isolate or max_memory as well": (
                not self.retry_on_kill or self.is_isolated
            ),
        }

    def _rules_of_schedules(self) -> dict[str, bool]:
        return {
            "give cron or every, not both": self.cron is None or self.every is None,
            f"cron={self.cron!r} must be a string": self.cron is None or isinstance(self.cron, str),
            f"every={self.every!r} must be more than 0 seconds, or a timedelta": (
                self.every is None or is_interval(self.every)
            ),
            f"timezone={self.timezone!r} must be the name of one, and is for cron": (
                self.timezone is None or (isinstance(self.timezone, str) and self.cron is not None)
            ),
            f"catch_up={self.catch_up!r} must be True or False": isinstance(self.catch_up, bool),
        }

    @cached_property
    def is_isolated(self) -> bool:
        """Whether it runs in a process of its own."""
        return self.isolate or self.time_limit is not None or self.max_memory is not None

    @cached_property
    def interval(self) -> float | None:
        """How many seconds `rate_limit` puts between two starts."""
        found = _RATE.fullmatch(self.rate_limit or "")
        return _SECONDS[found[2]] / float(found[1]) if found and float(found[1]) else None

    def retry_delay(self, retries: int) -> float:
        """Return how long to wait before the next try, after so many retries."""
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


def _is_text(value: object, most: int) -> bool:
    if not isinstance(value, str) or not issubclass(type(value), str) or not 0 < len(value) <= most:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _are_names(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_text(name, MOST_NAME) for name in value)


def is_seconds(value: Any) -> bool:
    """Tell whether a value can be a span of time in seconds, which a row can hold."""
    return _is_number(value) and value <= MOST


def _is_number(value: Any, kind: Any = (int, float)) -> bool:
    # by the type itself: isinstance() believes a lazy object, which no row can hold
    return issubclass(type(value), kind) and not isinstance(value, bool) and value >= 0


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(item, type) and issubclass(item, BaseException) for item in value
    )
