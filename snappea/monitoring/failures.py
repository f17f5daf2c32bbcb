"""Failed tasks in groups of the same exception, place and task, with what helps to judge each group."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from ..queue.clock import as_datetime, later, now
from ..queue.database import connect, raw
from ..queue.dialects import counted, statement
from ..tasks.discovery import find
from .formatting import one_line
from .inspect import OF_KIND, Failures

#: For how many hours the failures of a group are counted separately.
HOURS = 24
#: How many groups can be sorted by time: the most frequent ones.
MOST_SORTED = 1000

_LAST = f"(SELECT max(finished_at) FROM snappea_task WHERE {OF_KIND})"
_IN_PERIOD = counted(f"SELECT 1 FROM snappea_task WHERE {OF_KIND} AND finished_at >= ? AND finished_at < ?")
_DETAILS = ", ".join(
    (
        f"(SELECT min(finished_at) FROM snappea_task WHERE {OF_KIND})",
        _LAST,
        f"(SELECT CASE WHEN is_sensitive THEN '' ELSE error END FROM snappea_task WHERE {OF_KIND}"
        " ORDER BY finished_at DESC LIMIT 1)",
        *[_IN_PERIOD] * HOURS,
    )
)


class Group(NamedTuple):
    """A group of failures. `first` and `last`: when the oldest and the newest of them failed.

    `hours`: how many failed in each of the last 24 hours. `sample`: the last line of the newest error; empty
    if the task is sensitive.
    """

    exception: str
    place: str
    task_name: str
    number: int
    first: datetime | None
    last: datetime | None
    hours: list[int]
    sample: str


def groups(failures: Sequence[Failures]) -> list[Group]:
    """Return the details of groups that `inspect.failures()` has returned."""
    this_hour = f"{now(connect())[:14]}00:00"
    begins = [later(this_hour, 3600.0 * back) for back in range(1 - HOURS, 2)]
    periods = [border for period in pairwise(begins) for border in period]
    rows = _ask(_DETAILS, failures, periods)
    return [
        Group(*failed, _moment(first), _moment(last), hours, _sample(failed.task_name, error))
        for failed, (first, last, error, *hours) in zip(failures, rows, strict=True)
    ]


def by_last(failures: Sequence[Failures]) -> list[Failures]:
    """Sort groups by when they last failed, the newest first."""
    sorted_ones = failures[:MOST_SORTED]
    last = [moment or "" for (moment,) in _ask(_LAST, sorted_ones)]
    order = sorted(range(len(sorted_ones)), key=last.__getitem__, reverse=True)
    return [*(sorted_ones[at] for at in order), *failures[MOST_SORTED:]]


def _ask(columns: str, failures: Sequence[Failures], more: Sequence[str] = ()) -> list[tuple[Any, ...]]:
    if not failures:
        return []
    kinds = [column for failed in failures for column in failed[:3]]
    return raw(connect()).execute(_statement(columns, len(failures)), [*kinds, *more]).fetchall()


@cache
def _statement(columns: str, count: int) -> str:
    kinds = ", ".join(["(?, ?, ?)"] * count)
    return statement(f"WITH kind(exception, place, task_name) AS (VALUES {kinds}) SELECT {columns} FROM kind")


def _sample(task_name: str, error: str | None) -> str:
    task = find(task_name)
    return "" if error is None or (task and task.options.sensitive) else one_line(error)


def _moment(text: str | None) -> datetime | None:
    try:
        return as_datetime(text) if text else None
    except ValueError:  # written by hand
        return None
