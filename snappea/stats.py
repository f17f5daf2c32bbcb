"""Statistics about finished tasks, as counted by the Foreman (`foreman/statistics.py`)."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from .foreman.statistics import COUNTS, HALF_OCTAVE, SUMS
from .monitoring import inspect
from .queue.clock import later, minute_of, now
from .queue.database import connect, raw
from .queue.dialects import statement
from .queue.foremen import foremen_at_work
from .queue.logbook import Entry, Note
from .queue.records import ForemanInfo

_SINCE = """
    SELECT task_name, done, failed, done + failed + retried + cancelled, expired, run_sum, run_times
    FROM snappea_stat WHERE minute >= ? AND task_name <> ''"""
_OF_TASK = statement("""
    SELECT {untyped}minute, task_name, done, failed, retried + cancelled, starts, run_times, wait_times
    FROM snappea_stat WHERE task_name IN (?, '') AND minute >= ?""")


class Histogram(Counter[int]):
    """Times, in two buckets for each power of two seconds."""

    @classmethod
    def of(cls, *texts: str) -> "Histogram":
        """Read and merge columns of Stat. Invalid text gives an empty histogram."""
        pairs = ", ".join([text[1:-1] for text in texts if len(text) > 2])
        merged: defaultdict[str, int] = defaultdict(int)
        try:
            # one call is faster
            for bucket, count in json.loads(f"{{{pairs}}}", object_pairs_hook=list):
                merged[bucket] += count
            return cls({int(bucket): count for bucket, count in merged.items()})
        except (ValueError, TypeError):
            return cls()

    def percentile(self, share: float) -> float | None:
        """Return the time that a share of them stayed below, accurate to about a fifth; None if empty."""
        counts = sorted((+self).items())  # without those that are 0
        rank = share * sum(count for _, count in counts)
        for bucket, count in counts:
            if (rank := rank - count) <= 0:
                low, high = border(bucket), border(bucket + 1)
                return high + (high - low) * rank / count
        return None

    def below(self, seconds: float) -> float:
        """Return about how many are less than a time."""
        found = 0.0
        for bucket, count in self.items():
            low, high = border(bucket), border(bucket + 1)
            found += count * min(max((seconds - low) / (high - low), 0.0), 1.0)
        return found


def border(bucket: int) -> float:
    """Return the least time in a bucket of a Histogram, in seconds."""
    octave, is_upper = divmod(bucket, 2)
    return float(2.0 ** (octave - 1) * (HALF_OCTAVE * 2 if is_upper else 1))


class Period(NamedTuple):
    """The runs that ended in a period. `minute`: when it began."""

    minute: str
    done: int
    failed: int
    #: How many were retried or cancelled.
    others: int
    #: How many Foremen started.
    starts: int
    run_times: Histogram
    wait_times: Histogram

    @property
    def runs(self) -> int:
        """How many runs ended."""
        return self.done + self.failed + self.others


def history(periods: int, minutes: int, task_name: str = "") -> list[Period]:
    """Return the last periods of so many minutes, by default of all tasks; this minute ends the last one."""
    last = later(minute_of(now(connect())), -60.0 * (minutes - 1))
    begins = [later(last, -60.0 * minutes * back) for back in range(periods - 1, -1, -1)]
    first = datetime.fromisoformat(begins[0])
    rows: list[list[tuple[Any, ...]]] = [[] for _ in begins]
    starts = [0] * periods
    for minute, name, *row in raw(connect()).execute(_OF_TASK, (task_name, begins[0])).fetchall():
        index = int((datetime.fromisoformat(minute) - first).total_seconds() // 60 // minutes)
        if 0 <= index < periods:
            starts[index] += row.pop(3)
            if name == task_name:
                rows[index].append(tuple(row))
    return list(map(_period, begins, starts, rows))


def _period(minute: str, starts: int, rows: list[tuple[Any, ...]]) -> Period:
    done, failed, others, run_times, wait_times = zip(*rows, strict=True) if rows else ((),) * 5
    counts = sum(done), sum(failed), sum(others)
    return Period(minute, *counts, starts, Histogram.of(*run_times), Histogram.of(*wait_times))


def of_tasks(seconds: float) -> dict[str, dict[str, Any]]:
    """Return `done`, `failed`, `expired`, `mean` and `p95` of the last seconds by task."""
    columns = "done", "failed", "runs", "expired", "run_sum"
    found: dict[str, dict[str, Any]] = {}
    times: defaultdict[str, list[str]] = defaultdict(list)
    since = later(now(connect()), -seconds)
    for name, *numbers, run_times in raw(connect()).execute(_SINCE, (since,)).fetchall():
        task = found.setdefault(name, dict.fromkeys(columns, 0))
        for column, number in zip(columns, numbers, strict=True):
            task[column] += number
        times[name].append(run_times)
    for name, task in found.items():
        runs, run_sum = task.pop("runs"), task.pop("run_sum")
        task |= {"mean": run_sum / runs if runs else None, "p95": Histogram.of(*times[name]).percentile(0.95)}
    return found


def totals() -> dict[str, dict[str, float]]:
    """Return the totals by task: the columns of Total, and their sum `runs`."""
    sql = f"SELECT task_name, {', '.join(SUMS)} FROM snappea_total ORDER BY task_name"
    rows = raw(connect()).execute(sql).fetchall()
    found = {row[0]: dict(zip(SUMS, row[1:], strict=True)) for row in rows}
    for total in found.values():
        total["runs"] = sum(total[how] for how in COUNTS if how != "expired")
    return found


def snapshot() -> dict[str, Any]:
    """Return the state of the queue as plain data, as the console shows it.

    `foremen` (`busy`: threads, without stuck ones; `on_loop`: coroutines; `isolated`: tasks in processes of
    their own), `counts` by state, the number of `schedules`, `failed_lately` (how many tasks failed in the
    last hour), `oldest` (the longest wait of a task that could run), `queues`, `running`, `tasks` (with the
    numbers of the last hour) and `failures`. Times are in seconds. Tasks are counted up to
    `inspect.MOST_COUNTED`; one more means that there are more.

    >>> snapshot()["counts"]["failed"]
    3
    """
    claims = inspect.in_flight()
    foremen, runs = at_work(claims)
    queues = inspect.queues(runs)
    failures = inspect.failures()
    return {
        "foremen": foremen,
        **inspect.totals(claims),
        "oldest": inspect.oldest_wait(queues),
        "queues": [state._asdict() for state in queues],
        "running": [run._asdict() for run in runs],
        "tasks": _tasks(runs, failures),
        "failures": [group._asdict() for group in failures[: inspect.MOST_SHOWN]],
    }


def at_work(claims: Mapping[Entry, Note]) -> tuple[list[dict[str, Any]], list[inspect.Running]]:
    """Return the `foremen` of a snapshot, and the running tasks. `claims`: those in flight."""
    foremen = foremen_at_work()
    runs = inspect.running(claims, [task_id for info in foremen for task_id in info.stuck])
    return [_described(info, runs) for info in foremen], runs


def _tasks(runs: Iterable[inspect.Running], failures: Iterable[inspect.Failures]) -> list[dict[str, Any]]:
    waiting, has_more = inspect.waiting_names()
    running, failed = Counter(run.task_name for run in runs), Counter[str]()
    for group in failures:
        failed[group.task_name] += group.number
    ended = of_tasks(3600)
    nothing = {"done": 0, "failed": 0, "expired": 0, "mean": None, "p95": None}
    return [
        {
            "name": name,
            "pending": waiting.get(name, 0),
            "has_more": has_more,
            "running": running[name],
            "kept": failed[name],
            **ended.get(name, nothing),
        }
        for name in sorted({*waiting, *running, *failed, *ended})
    ]


def _described(info: ForemanInfo, runs: Iterable[inspect.Running]) -> dict[str, Any]:
    mine = [run for run in runs if run.foreman == info.number and not run.is_stuck]
    on_loop = sum(bool(run.is_async) for run in mine)
    isolated = sum(run.is_isolated for run in mine)
    return {**inspect.described(info), "busy": len(mine) - on_loop, "on_loop": on_loop, "isolated": isolated}


def names(seconds: float) -> list[str]:
    """Return the names of the tasks that ended in the last seconds."""
    since = later(now(connect()), -seconds)
    found = raw(connect()).execute(
        "SELECT DISTINCT task_name FROM snappea_stat WHERE minute >= ? AND task_name <> ''", (since,)
    )
    return [name for (name,) in found.fetchall()]
