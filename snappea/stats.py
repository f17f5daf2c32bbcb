"""Statistics: what became of tasks, minute by minute.

The Foreman counts in memory, and writes a minute's numbers once it is over, in a transaction that it makes
anyway (in one of its own only when work has ceased). They are never worth a task: what cannot be written is
forgotten.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from logging import WARNING
from math import frexp
from typing import Any, NamedTuple

from .log import say_seldom
from .models import Status
from .monitoring import inspect
from .queue import store
from .queue.connection import FAULTS, RawConnection
from .queue.database import connect, later, now, raw
from .queue.foremen import foremen_at_work
from .queue.records import Expired, ForemanInfo, Outcome

#: At most so many old rows are deleted at a time.
AT_ONCE = 1000
#: Of about so many tasks in a round it is counted how long they waited.
TIMED = 32
#: At most so many names are told apart within a minute; what else there is counts as the last one.
MOST_NAMES = 1000
OTHERS = "(others)"
#: What counts as this long took no time at all, in seconds.
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


class Histogram(dict[int, int]):
    """How many took how long: two buckets for each power of two seconds, so that no bucket is wide."""

    @classmethod
    def of(cls, text: str) -> "Histogram":
        """Read what a row of Stat has."""
        try:
            return cls({int(bucket): int(count) for bucket, count in json.loads(text).items()})
        except (ValueError, AttributeError, TypeError):
            return cls()

    def add(self, other: Mapping[int, int]) -> None:
        """Add another one's numbers."""
        for bucket, count in other.items():
            self[bucket] = self.get(bucket, 0) + count

    def percentile(self, share: float) -> float | None:
        """Return below how many seconds a share of them stayed, to within a fifth or so; None if empty."""
        rank = share * sum(self.values())
        for bucket in sorted(self):
            if (rank := rank - self[bucket]) <= 0:
                low, high = _border(bucket), _border(bucket + 1)
                return high + (high - low) * rank / self[bucket]
        return None


def _border(bucket: int) -> float:
    """Return where a bucket begins, in seconds."""
    octave, is_upper = divmod(bucket, 2)
    return float(2.0 ** (octave - 1) * (_HALF_OCTAVE * 2 if is_upper else 1))


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
                due = datetime.fromisoformat(claim.due if claim.extras else claim.enqueued_at)
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


# looking back

_SINCE = """
    SELECT task_name, done, failed, done + failed + retried + cancelled, expired, run_sum, run_times
    FROM snappea_stat WHERE minute >= ? AND task_name <> ''"""
_BY_MINUTE = """
    SELECT +minute, sum(done), sum(failed), sum(retried + cancelled),
        sum(wait_sum), max(wait_max), sum(run_sum), max(run_max), max(backlog)
    FROM snappea_stat WHERE minute >= ? GROUP BY minute"""


class Period(NamedTuple):
    """What ended in a span of time. `minute`: when that began. Times are in seconds."""

    minute: str
    done: int = 0
    failed: int = 0
    others: int = 0
    wait_sum: float = 0.0
    wait_max: float = 0.0
    run_sum: float = 0.0
    run_max: float = 0.0
    #: How many were ready; None if nobody has counted.
    backlog: int | None = None

    @property
    def runs(self) -> int:
        """How many runs ended."""
        return self.done + self.failed + self.others

    @property
    def wait_mean(self) -> float:
        """How long a run had waited."""
        return self.wait_sum / self.runs if self.runs else 0.0

    @property
    def run_mean(self) -> float:
        """How long a run took."""
        return self.run_sum / self.runs if self.runs else 0.0

    def and_also(self, other: "Period") -> "Period":
        """Return both in one."""
        backlogs = [backlog for backlog in (self.backlog, other.backlog) if backlog is not None]
        return Period(
            self.minute,
            self.done + other.done,
            self.failed + other.failed,
            self.others + other.others,
            self.wait_sum + other.wait_sum,
            max(self.wait_max, other.wait_max),
            self.run_sum + other.run_sum,
            max(self.run_max, other.run_max),
            max(backlogs, default=None),
        )


def history(periods: int, minutes: int) -> list[Period]:
    """Return so many periods of so many minutes each; the last one ends with this minute."""
    this_minute = f"{now(connect())[:16]}:00"
    last = later(this_minute, -60.0 * (minutes - 1))
    begins = [later(last, -60.0 * minutes * back) for back in range(periods - 1, -1, -1)]
    found = [Period(begin) for begin in begins]
    first = datetime.fromisoformat(begins[0])
    for row in raw(connect()).execute(_BY_MINUTE, (begins[0],)).fetchall():
        index = int((datetime.fromisoformat(row[0]) - first).total_seconds() // 60 // minutes)
        if 0 <= index < periods:
            found[index] = found[index].and_also(Period._make(row))
    return found


def of_tasks(seconds: float) -> dict[str, dict[str, Any]]:
    """Return for each task what ended in the last so many seconds: `done`, `failed`, `mean`, `p95`."""
    columns = "done", "failed", "runs", "expired", "run_sum"
    found: dict[str, dict[str, Any]] = {}
    times: dict[str, Histogram] = {}
    since = later(now(connect()), -seconds)
    for name, *numbers, run_times in raw(connect()).execute(_SINCE, (since,)).fetchall():
        task = found.setdefault(name, dict.fromkeys(columns, 0))
        for column, number in zip(columns, numbers, strict=True):
            task[column] += number
        times.setdefault(name, Histogram()).add(Histogram.of(run_times))
    for name, task in found.items():
        runs, run_sum = task.pop("runs"), task.pop("run_sum")
        task |= {"mean": run_sum / runs if runs else None, "p95": times[name].percentile(0.95)}
    return found


def totals() -> dict[str, dict[str, float]]:
    """Return for each task what ever became of it: the columns of Total, and how many `runs` that were."""
    rows = raw(connect()).execute(f"SELECT {_TOTAL} FROM snappea_total ORDER BY task_name").fetchall()
    found = {row[0]: dict(zip(_TOTAL.split(", ")[1:], row[1:], strict=True)) for row in rows}
    for total in found.values():
        total["runs"] = sum(total[how] for how in ("done", "failed", "retried", "cancelled"))
    return found


def snapshot() -> dict[str, Any]:
    """Return how things stand, as plain data: for the dashboard, and for whoever wants to look.

    `foremen` (none if none runs; `busy`: threads, but for those that are stuck; `on_loop`: coroutines),
    `counts` by state, `oldest` (how long a task has waited that could run),
    `queues`, `running`, `tasks` (with what ended in the last hour) and `failures`. Times are in seconds.
    """
    claims = inspect.in_flight()
    foremen = foremen_at_work()
    runs = inspect.running(claims, [task_id for info in foremen for task_id in info.stuck])
    queues = inspect.queues(runs)
    failures = inspect.failures()
    waiting, has_more = inspect.waiting_names()
    running, failed = Counter(run.task_name for run in runs), Counter[str]()
    for group in failures:
        failed[group.task_name] += group.number
    ended = of_tasks(3600)
    nothing = {"done": 0, "failed": 0, "expired": 0, "mean": None, "p95": None}
    return {
        "foremen": [_described(info, runs) for info in foremen],
        "counts": {
            str(status): failed.total() if status == Status.FAILED else inspect.count(status, claims)
            for status in Status
        },
        "oldest": inspect.oldest_wait(queues),
        "queues": [state._asdict() for state in queues],
        "running": [run._asdict() for run in runs],
        "tasks": [
            {
                "name": name,
                "pending": waiting.get(name, 0),
                "has_more": has_more,
                "running": running[name],
                "kept": failed[name],
                **ended.get(name, nothing),
            }
            for name in sorted({*waiting, *running, *failed, *ended})
        ],
        "failures": [group._asdict() for group in failures[: inspect.MOST_SHOWN]],
    }


def _described(info: ForemanInfo, runs: Iterable[inspect.Running]) -> dict[str, Any]:
    busy = Counter(bool(run.is_async) for run in runs if run.foreman == info.number and not run.is_stuck)
    return info._asdict() | {
        "memory": inspect.memory_of(info),
        "busy": busy[False],
        "on_loop": busy[True],
    }


def names(seconds: float) -> list[str]:
    """Return the names of the tasks of which something ended in the last so many seconds."""
    since = later(now(connect()), -seconds)
    found = raw(connect()).execute(
        "SELECT DISTINCT task_name FROM snappea_stat WHERE minute >= ? AND task_name <> ''", (since,)
    )
    return [name for (name,) in found.fetchall()]
