"""Statistics of minutes that have passed, as a Foreman would have written them."""

from collections.abc import Mapping
from typing import Any

from snappea.foreman.statistics import Stats, _Counter
from snappea.models import Stat
from snappea.queue.clock import as_datetime, later, minute_of, now
from snappea.queue.database import connect, transact

RETENTION = 7 * 1440


def write_minute(
    back: int, tasks: Mapping[str, Mapping[str, Any]], backlog: int | None = None, starts: int = 0
) -> None:
    """Write the minute so many minutes ago. `tasks`: the numbers of each task by the columns of Stat."""
    minute = later(minute_of(now()), -60.0 * back)
    counted = Stats(RETENTION)
    counted._minute, counted.backlog = minute, backlog
    for name, numbers in tasks.items():
        counted._counters[name] = counter = _Counter()
        for column, value in numbers.items():
            setattr(counter, column, value)
    with transact(connect()) as db:
        counted.write(db, at_once=True)
    if starts:
        Stat.objects.create(minute=as_datetime(minute), task_name="", starts=starts)
