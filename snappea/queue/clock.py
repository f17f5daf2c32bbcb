"""The queue's only wall clock, and times as text in the queue's database."""

import time
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from ..conf import current


def now(connection: BaseDatabaseWrapper | None = None) -> str:
    """Return the current time, as Django writes it to the queue's database."""
    zone = (connection or connections[current().DATABASE]).timezone
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second_as_text(seconds, zone)}.{microseconds:06}"


def lead() -> float:
    """Return by how many seconds the clock is ahead of the monotonic one: it changes if the clock is set."""
    return time.time_ns() / 1e9 - time.monotonic()


def steady_clock() -> float:
    """Return seconds for waits. They advance even if a test has frozen `time.monotonic()`."""
    return time.clock_gettime(time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else time.monotonic()


@lru_cache(maxsize=2)  # makes now() three times as fast
def _second_as_text(seconds: int, zone: tzinfo | None) -> str:
    return str(datetime.fromtimestamp(seconds, zone).replace(tzinfo=None))


def as_text(moment: datetime) -> str:
    """Return a time as Django writes it to the queue's database.

    A time outside the range of UTC becomes the first or last one. Raises ValueError if it is naive and USE_TZ
    is on.
    """
    zone = connections[current().DATABASE].timezone
    if moment.tzinfo is not None:
        try:
            moment = moment.astimezone(zone).replace(tzinfo=None)
        except OverflowError:
            moment = datetime.max if moment.year > 5000 else datetime.min
    elif zone is not None:
        raise ValueError(
            f"{moment!r} is naive, which makes it ambiguous: pass an aware datetime, such as "
            "django.utils.timezone.now()"
        )
    return str(moment)


def as_datetime(text: str) -> datetime:
    """Return a time from the queue's database."""
    return datetime.fromisoformat(text).replace(tzinfo=connections[current().DATABASE].timezone)


def as_local(moment: datetime) -> datetime:
    """Return a time in the current time zone; unchanged if it is out of range there."""
    if not timezone.is_aware(moment):
        return moment
    try:
        return timezone.localtime(moment)
    except OverflowError:
        return moment


def seconds_until(moment: str) -> float:
    """Return the seconds until a time; negative if it has passed."""
    return (datetime.fromisoformat(moment) - datetime.fromisoformat(now())).total_seconds()


def later(moment: str, seconds: float) -> str:
    """Return the time so many seconds later, limited to the range of Python's dates."""
    try:
        return str(datetime.fromisoformat(moment) + timedelta(seconds=seconds))
    except OverflowError:
        return str(datetime.max if seconds > 0 else datetime.min)


def minute_of(moment: str) -> str:
    """Return the beginning of the minute of a time."""
    return f"{moment[:16]}:00"


def seconds_of(span: float | timedelta, name: str, more: str = " or a timedelta") -> float:
    """Return a number or a timedelta in seconds. `name` and `more` are for the message of an error.

    Raises TypeError for other types, ValueError for NaN.
    """
    if isinstance(span, timedelta):
        return span.total_seconds()
    kind = type(span)  # isinstance() would accept Django's lazy objects
    if kind is bool or not issubclass(kind, (int, float)):
        raise TypeError(f"{name}={span!r} must be a number of seconds{more}.")
    if span != span:
        raise ValueError(f"{name}={span!r} must be a number of seconds{more}, not NaN.")
    return span
