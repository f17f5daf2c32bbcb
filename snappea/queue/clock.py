"""The queue's only wall clock, and times as they are written in its database."""

import time
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from ..conf import current


def now(connection: BaseDatabaseWrapper | None = None) -> str:
    """Return the time as Django writes it into the queue's database. The queue's only wall clock."""
    zone = (connection or connections[current().DATABASE]).timezone
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second_as_text(seconds, zone)}.{microseconds:06}"


def steady_clock() -> float:
    """Return seconds for waits. They advance even where a test has frozen `time.monotonic()`."""
    if not hasattr(time, "clock_gettime"):
        return time.monotonic()
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@lru_cache(maxsize=2)  # to format each time again takes three times as long
def _second_as_text(seconds: int, zone: tzinfo | None) -> str:
    return str(datetime.fromtimestamp(seconds, zone).replace(tzinfo=None))


def as_text(moment: datetime) -> str:
    """Return a time as Django writes it into the queue's database.

    One beyond the range of UTC becomes its first or last time. Raises ValueError for a naive one with USE_TZ.
    """
    zone = connections[current().DATABASE].timezone
    if moment.tzinfo is not None:
        try:
            moment = moment.astimezone(zone).replace(tzinfo=None)
        except OverflowError:
            moment = datetime.max if moment.year > 5000 else datetime.min
    elif zone is not None:
        raise ValueError(
            f"{moment!r} is naive, and could be any hour: pass an aware datetime, as from "
            "django.utils.timezone.now()"
        )
    return str(moment)


def as_datetime(text: str) -> datetime:
    """Return a time from the queue's database."""
    return datetime.fromisoformat(text).replace(tzinfo=connections[current().DATABASE].timezone)


def as_local(moment: datetime) -> datetime:
    """Return a time in the current time zone, to be shown; unchanged if it is out of that zone's range."""
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
    """Return the time so many seconds after another one, within the range of Python's dates."""
    try:
        return str(datetime.fromisoformat(moment) + timedelta(seconds=seconds))
    except OverflowError:
        return str(datetime.max if seconds > 0 else datetime.min)


def seconds_of(span: float | timedelta, name: str, more: str = " or a timedelta") -> float:
    """Return a span of time in seconds. `name`: what to call it in errors; `more`: what else it may be.

    Raises TypeError for anything but a number or a timedelta, ValueError for NaN.
    """
    if isinstance(span, timedelta):
        return span.total_seconds()
    kind = type(span)  # isinstance() is true for Django's lazy objects
    if kind is bool or not issubclass(kind, (int, float)):
        raise TypeError(f"{name}={span!r} must be a number of seconds{more}.")
    if span != span:
        raise ValueError(f"{name}={span!r} must be a number of seconds{more}: NaN is none.")
    return span
