"""The least shares of SQLite's own speed: `python -m tests.benchmarks --floors`, which CI runs.

A time would say as much about the machine as about Snappea. So each measurement is made of both in turn, and
the median of the ratios counts. Each floor is less than half of what is usual.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .figures import FIGURES, Results
from .measurements import MEASUREMENTS, QUICK, Bench, Sizes
from .systems import SYSTEMS
from .templates import Templates

#: How many rounds are measured: more than the least only while a floor is not reached.
LEAST, MOST = 3, 9
SIZES = Sizes(calls=2000, at_once=5000, times=3, tasks=5000, seconds=2.0, behind=QUICK.behind)


class Floor(NamedTuple):
    """The least share of the limit's figure that a system must reach."""

    figure: str
    system: str
    limit: str
    share: float


FLOORS = (
    Floor("enqueue", "snappea", "sqlite", 0.35),
    Floor("enqueue", "snappea-full", "sqlite-full", 0.3),
    Floor("bulk", "snappea", "sqlite", 0.3),
    Floor("drain", "snappea", "sqlite", 0.15),
)


def measure() -> Results:
    """Measure each system beside its limit, until all floors are reached, but at least LEAST rounds."""
    results = Results()
    with tempfile.TemporaryDirectory(prefix="snappea-floors-") as home:
        bench = Bench(SIZES, Templates(Path(home), SIZES.tasks, 2 * SIZES.seconds, SIZES.behind))
        for number in range(MOST):
            for floor in FLOORS:
                pair = (floor.system, floor.limit)
                for name in reversed(pair) if number % 2 else pair:  # none is always the first
                    results.add(name, MEASUREMENTS[floor.figure](bench, SYSTEMS[name]))
            if number + 1 >= LEAST and not missed(results):
                break
    return results


def missed(results: Results) -> list[Floor]:
    """Return the floors that are not reached."""
    return [floor for floor in FLOORS if share(results, floor) < floor.share]


def share(results: Results, floor: Floor) -> float:
    """Return the median of the rounds' ratios."""
    ours, limits = (results.of(name, floor.figure) for name in (floor.system, floor.limit))
    return median(our / limit for our, limit in zip(ours, limits, strict=True))


def report(results: Results) -> Iterator[str]:
    """Yield a line for each floor."""
    for floor in FLOORS:
        reached = share(results, floor)
        figure, system = FIGURES[floor.figure].title.rpartition(", ")[0], SYSTEMS[floor.system].title
        verdict = ": too slow" if floor in missed(results) else ""
        yield f"{figure}, {system}: {reached:.0%} of sqlite3 alone, at least {floor.share:.0%}{verdict}"
