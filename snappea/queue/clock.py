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
    """Return seconds that go on even where a test has frozen or moved `time.monotonic()`: for waits."""
    if not hasattr(time, "clock_gettime"):
        return time.monotonic()
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@lru_cache(maxsize=2)  # one is enough, mostly: to write a second anew each time costs three times as much
def _second_as_text(seconds: int, zone: tzinfo | None) -> str:
    return str(datetime.fromtimestamp(seconds, zone).replace(tzinfo=None))


def as_text(moment: datetime) -> str:
    """Return a time as Django writes it into the queue's database.

    One that UTC cannot count to is the first or last that it can. Raises ValueError if it is naive though
    USE_TZ is on.
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
    """Return the time that stands in the queue's database."""
    return datetime.fromisoformat(text).replace(tzinfo=connections[current().DATABASE].timezone)


def as_local(moment: datetime) -> datetime:
    """Return a time in the current time zone, to be shown; as it is if that zone cannot count to it."""
    if not timezone.is_aware(moment):
        return moment
    try:
        return timezone.localtime(moment)
    except OverflowError:
        return moment


def seconds_until(moment: str) -> float:
    """Return how many seconds it is until a time; negative if it has passed."""
    return (datetime.fromisoformat(moment) - datetime.fromisoformat(now())).total_seconds()


def later(moment: str, seconds: float) -> str:
    """Return the time so many seconds after another one; no later or earlier than Python can count."""
    try:
        return str(datetime.fromisoformat(moment) + timedelta(seconds=seconds))
    except OverflowError:
        return str(datetime.max if seconds > 0 else datetime.min)


def seconds_of(span: float | timedelta, name: str, more: str = " or a timedelta") -> float:
    """Return a span of time in seconds. `name`: what to call it in errors; `more`: what else it may be.

    Raises TypeError for what is no span of time, ValueError for NaN.
    """
    if isinstance(span, timedelta):
        return span.total_seconds()
    if isinstance(span, bool) or not issubclass(
        type(span), (int, float)
    ):  # a lazy object lies to isinstance()
        raise TypeError(f"{name}={span!r} must be a number of seconds{more}.")
    if span != span:
        raise ValueError(f"{name}={span!r} must be a number of seconds{more}: NaN is none.")
    return span
