"""Counts what became of tasks, minute by minute.

The Foreman counts in memory and writes a minute once it is over, in a transaction that it makes anyway (in
one of its own only when the work has ended). No task ever waits for statistics: what cannot be written is
dropped.
"""

import json
import time
from collections.abc import Iterable
from datetime import datetime
from logging import WARNING
from math import frexp

from ..log import say_seldom
from ..models import Status
from ..queue import store
from ..queue.clock import later
from ..queue.database import FAULTS, RawConnection
from ..queue.records import Expired, Outcome

#: At most so many old rows are deleted at a time.
AT_ONCE = 1000
#: Waiting times are counted for about so many tasks of a round.
TIMED = 32
#: At most so many task names are counted separately within a minute; the rest is counted as OTHERS.
MOST_NAMES = 1000
OTHERS = "(others)"
#: A shorter run counts as this long, in seconds.
SHORTEST = 1e-6
_HALF_OCTAVE = 0.5**0.5  # the border within a power of two
_INSERT = """
    INSERT INTO snappea_stat (minute, task_name, done, failed, retried, cancelled, expired,
        wait_sum, wait_max, run_sum, run_max, run_times, backlog)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_TOTAL = "task_name, done, failed, retried, cancelled, expired, wait_sum, run_sum"
_ADD_UP = f"""
    INSERT INTO snappea_total AS total ({_TOTAL})
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (task_name) DO UPDATE SET done = total.done + excluded.done,
        failed = total.failed + excluded.failed, retried = total.retried + excluded.retried,
        cancelled = total.cancelled + excluded.cancelled, expired = total.expired + excluded.expired,
        wait_sum = total.wait_sum + excluded.wait_sum, run_sum = total.run_sum + excluded.run_sum"""
_PURGE = """
    DELETE FROM snappea_stat WHERE id IN (
        SELECT id FROM snappea_stat WHERE minute < ? ORDER BY minute LIMIT ?)"""


class _Counter:
    """Of one task, in one minute."""

    __slots__ = (
        "cancelled",
        "done",
        "expired",
        "failed",
        "retried",
        "run_max",
        "run_sum",
        "run_times",
        "wait_max",
        "wait_sum",
    )

    def __init__(self) -> None:
        self.done = self.failed = self.retried = self.cancelled = self.expired = 0
        self.wait_sum = self.wait_max = self.run_sum = self.run_max = 0.0
        self.run_times: dict[int, int] = {}

    def count_failure(self, outcome: Outcome) -> None:
        if outcome.is_revoked:
            self.cancelled += 1
        elif outcome.retry_after is not None:
            self.retried += 1
        else:
            self.failed += 1

    def row(self, minute: str, name: str) -> tuple[object, ...]:
        counts = self.done, self.failed, self.retried, self.cancelled, self.expired
        times = self.wait_sum, self.wait_max, self.run_sum, self.run_max, json.dumps(self.run_times)
        return minute, name, *counts, *times, None


class Stats:
    """What the Foreman has counted and not yet written. `retention`: how many minutes are kept; 0: none."""

    def __init__(self, retention: int) -> None:
        self._retention = retention
        self._minute = ""
        self._due = 0.0
        self._backlog: int | None = None  # how many were ready at the end of the minute
        self._counters: dict[str, _Counter] = {}

    def count(self, outcomes: list[Outcome], moment: str) -> None:
        """Count what has ended, as of now."""
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
            bucket = octave * 2 if part < _HALF_OCTAVE else octave * 2 + 1
            times = counter.run_times
            times[bucket] = times.get(bucket, 0) + 1
        self._count_waits(outcomes, datetime.fromisoformat(moment))

    def _count_waits(self, outcomes: list[Outcome], here: datetime) -> None:
        """Add up how long they waited: all, or in a round of many each n-th for n of them."""
        step = 1 + len(outcomes) // TIMED
        for outcome in outcomes[::step]:
            claim = outcome.claim
            try:
                due = datetime.fromisoformat(claim.due if claim.extras_json else claim.enqueued_at)
                wait = max(0.0, (here - due).total_seconds() - outcome.duration)
            except (ValueError, TypeError):  # somebody wrote the row by hand
                continue
            counter = self._counter(claim.task_name)
            counter.wait_sum += wait * step
            counter.wait_max = max(counter.wait_max, wait)

    def count_expired(self, expired: Iterable[Expired], moment: str) -> None:
        """Count what was not run for its age."""
        for task in expired if self._retention else ():
            if task.status != Status.SUCCESSFUL:
                self._begin(moment)
                self._counter(task.task_name).expired += 1

    def _begin(self, moment: str) -> None:
        if not self._counters:
            self._minute = f"{moment[:16]}:00"
            self._due = time.monotonic() + 60 - int(moment[17:19])

    def _counter(self, name: str) -> _Counter:
        if name not in self._counters:
            is_name = isinstance(name, str)  # somebody may have written the row by hand
            name = name if is_name and len(self._counters) < MOST_NAMES else OTHERS
        return self._counters.setdefault(name, _Counter())

    def look(self, db: RawConnection) -> None:
        """See how many are ready, if a minute is over. Not within a transaction: there may be a million."""
        if self._counters and self._backlog is None and time.monotonic() >= self._due:
            self._backlog = store.depth(db)

    def is_due(self) -> bool:
        """Tell whether there is a minute to be written."""
        return self._backlog is not None

    def write(self, db: RawConnection, at_once: bool = False) -> None:
        """Write the minute that is over, or what there is of it `at_once`; otherwise do nothing.

        Whether that succeeds or not, the numbers are let go. Raises one of FAULTS only if the database gave
        the whole transaction up, which is then to be tried again: without them.
        """
        if not self._counters or not (at_once or self.is_due()):
            return
        # in order, or two Foremen could wait for each other
        rows = [counter.row(self._minute, name) for name, counter in sorted(self._counters.items())]
        rows.append((*_Counter().row(self._minute, "")[:-1], self._backlog))
        self._counters, self._backlog = {}, None
        db.execute("SAVEPOINT snappea_stats")
        try:
            db.executemany(_INSERT, rows)
            db.executemany(_ADD_UP, [(*row[1:8], row[9]) for row in rows if row[1]])
            db.execute(_PURGE, (later(self._minute, -60 * self._retention), AT_ONCE))
        except FAULTS as error:
            say_seldom(WARNING, "The statistics of a minute could not be written: %s", error)
            if not db.in_transaction:
                raise
            db.execute("ROLLBACK TO snappea_stats")
        db.execute("RELEASE snappea_stats")
