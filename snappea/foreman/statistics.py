"""Count finished tasks, minute by minute.

The Foreman counts in memory, and writes a minute once it is over, with its next transaction. No task ever
waits for statistics: if they cannot be written, they are dropped.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from logging import WARNING
from math import frexp

from django.db.backends.base.base import BaseDatabaseWrapper

from ..log import say_seldom
from ..models import Status
from ..queue import store
from ..queue.clock import later, minute_of, now
from ..queue.database import FAULTS, RawConnection, transact
from ..queue.records import Expired, Outcome

#: How many old rows to delete at a time.
AT_ONCE = 1000
#: For about how many tasks of a round to count waiting times.
TIMED = 32
#: How many task names to count separately in a minute. The rest is counted as OTHERS.
MOST_NAMES = 1000
OTHERS = "(others)"
#: Shorter runs count as this long, in seconds.
SHORTEST = 1e-6
#: The border between the two buckets of a power of two.
HALF_OCTAVE = 0.5**0.5
#: The columns of Total.
COUNTS = ("done", "failed", "retried", "cancelled", "expired")
SUMS = (*COUNTS, "wait_sum", "run_sum")
_NUMBERS = (*COUNTS, "wait_sum", "wait_max", "run_sum", "run_max")
_COLUMNS = (*_NUMBERS, "run_times", "wait_times")
_INSERT = f"""
    INSERT INTO snappea_stat (minute, task_name, {", ".join(_COLUMNS)}, backlog, starts)
    VALUES (?, ?, {", ".join("?" * len(_COLUMNS))}, ?, ?)"""
_ADD_UP = f"""
    INSERT INTO snappea_total AS total (task_name, {", ".join(SUMS)})
    VALUES (?, {", ".join("?" * len(SUMS))}) ON CONFLICT (task_name)
    DO UPDATE SET {", ".join(f"{column} = total.{column} + excluded.{column}" for column in SUMS)}"""
_PURGE = """
    DELETE FROM snappea_stat WHERE id IN (
        SELECT id FROM snappea_stat WHERE minute < ? ORDER BY minute LIMIT ?)"""


class _Counter:
    """The numbers of one task in one minute."""

    __slots__ = _COLUMNS

    def __init__(self) -> None:
        self.done = self.failed = self.retried = self.cancelled = self.expired = 0
        self.wait_sum = self.wait_max = self.run_sum = self.run_max = 0.0
        self.run_times: dict[int, int] = {}
        self.wait_times: dict[int, int] = {}

    def count_failure(self, outcome: Outcome) -> None:
        if outcome.is_revoked:
            self.cancelled += 1
        elif outcome.retry_after is not None:
            self.retried += 1
        else:
            self.failed += 1

    def add(self, other: "_Counter") -> None:
        for column in SUMS:
            setattr(self, column, getattr(self, column) + getattr(other, column))
        self.wait_max = max(self.wait_max, other.wait_max)
        self.run_max = max(self.run_max, other.run_max)
        self.run_times = Counter(self.run_times) + Counter(other.run_times)
        self.wait_times = Counter(self.wait_times) + Counter(other.wait_times)

    def values(self, columns: Iterable[str]) -> tuple[float, ...]:
        return tuple(getattr(self, column) for column in columns)

    def row(self, minute: str, name: str, backlog: int | None = None, starts: int = 0) -> tuple[object, ...]:
        times = json.dumps(self.run_times), json.dumps(self.wait_times)
        return minute, name, *self.values(_NUMBERS), *times, backlog, starts


class Stats:
    """The numbers that are not yet written. `retention`: for how many minutes to keep rows."""

    def __init__(self, retention: int) -> None:
        self._retention = retention
        self._minute = ""
        self._due = 0.0
        #: How many tasks were ready at the end of the minute; None until it is over.
        self.backlog: int | None = None
        self._counters: dict[str, _Counter] = {}

    def count(self, outcomes: list[Outcome], moment: str) -> None:
        """Count tasks that have ended."""
        if not outcomes or not self._retention:
            return
        self._begin(moment)
        counters = self._counters
        for outcome in outcomes:
            name, duration = outcome.claim.task_name, outcome.duration
            counter = counters.get(name) or self._counter(name)
            if outcome.error:
                counter.count_failure(outcome)
            else:
                counter.done += 1
            counter.run_sum += duration
            if duration > counter.run_max:
                counter.run_max = duration
            part, octave = frexp(duration or SHORTEST)
            bucket = octave * 2 + (part >= HALF_OCTAVE)
            times = counter.run_times
            times[bucket] = times.get(bucket, 0) + 1
        self._count_waits(outcomes, datetime.fromisoformat(moment))

    def _count_waits(self, outcomes: list[Outcome], here: datetime) -> None:
        """Add up the waiting times. In a large round, each n-th task stands for n tasks."""
        step = 1 + len(outcomes) // TIMED
        for outcome in outcomes[::step]:
            claim = outcome.claim
            try:
                due = datetime.fromisoformat(claim.due if claim.extras_json else claim.enqueued_at)
                wait = max(0.0, (here - due).total_seconds() - outcome.duration)
            except (ValueError, TypeError):  # the row was written by hand
                continue
            counter = self._counters.get(claim.task_name) or self._counter(claim.task_name)
            counter.wait_sum += wait * step
            if wait > counter.wait_max:
                counter.wait_max = wait
            part, octave = frexp(wait or SHORTEST)
            bucket = octave * 2 + (part >= HALF_OCTAVE)
            times = counter.wait_times
            times[bucket] = times.get(bucket, 0) + step

    def count_expired(self, expired: Iterable[Expired], moment: str) -> None:
        """Count tasks that have expired."""
        for task in expired if self._retention else ():
            if task.status != Status.SUCCESSFUL:
                self._begin(moment)
                self._counter(task.task_name).expired += 1

    def _begin(self, moment: str) -> None:
        if not self._counters:
            self._minute = minute_of(moment)
            self._due = time.monotonic() + 60 - int(moment[17:19])

    def _counter(self, name: str) -> _Counter:
        if name not in self._counters:
            is_name = isinstance(name, str)  # the row may have been written by hand
            name = name if is_name and len(self._counters) < MOST_NAMES else OTHERS
        return self._counters.setdefault(name, _Counter())

    def write_start(self, connection: BaseDatabaseWrapper) -> None:
        """Write that a Foreman has started, if possible."""
        if not self._retention:
            return
        minute = minute_of(now(connection))
        try:
            with transact(connection) as db:
                db.execute(_INSERT, _Counter().row(minute, "", starts=1))
                db.execute(_PURGE, (later(minute, -60 * self._retention), AT_ONCE))
        except FAULTS as error:
            say_seldom(WARNING, "The start could not be added to the statistics: %s", error)

    def look(self, db: RawConnection) -> None:
        """Count the ready tasks if a minute is over. Outside a transaction: there may be a million."""
        if self._counters and self.backlog is None and time.monotonic() >= self._due:
            self.backlog = store.depth_by(db)

    def write(self, db: RawConnection, at_once: bool = False) -> None:
        """Write the minute that is over; `at_once`: also one that is not.

        The numbers are dropped even if that fails. Raises one of FAULTS only if the database has rolled back
        the whole transaction: the caller repeats it without them.
        """
        if not self._counters or not (at_once or self.backlog is not None):
            return
        counted = sorted(self._counters.items())  # sorted, or two Foremen could deadlock
        rows = [counter.row(self._minute, name) for name, counter in counted]
        whole = _Counter()
        for _name, counter in counted:
            whole.add(counter)
        rows.append(whole.row(self._minute, "", self.backlog))
        self._counters, self.backlog = {}, None
        db.execute("SAVEPOINT snappea_stats")
        try:
            db.executemany(_INSERT, rows)
            db.executemany(_ADD_UP, [(name, *counter.values(SUMS)) for name, counter in counted])
            db.execute(_PURGE, (later(self._minute, -60 * self._retention), AT_ONCE))
        except FAULTS as error:
            say_seldom(WARNING, "The statistics of a minute could not be written: %s", error)
            if not db.in_transaction:
                raise
            db.execute("ROLLBACK TO snappea_stats")
        db.execute("RELEASE snappea_stats")
