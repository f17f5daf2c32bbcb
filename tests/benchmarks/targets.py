"""What Snappea must reach. These are reported, not tested: no test asserts a time."""

from collections.abc import Callable, Iterator
from statistics import StatisticsError
from typing import NamedTuple

from .figures import Results
from .systems import SYSTEMS


class Target(NamedTuple):
    """The target for a figure of a system."""

    figure: str
    system: str
    wanted: str
    is_met: Callable[[Results], bool]


def at_least(figure: str, system: str, least: float) -> Target:
    return Target(figure, system, f"at least {least:,g}", lambda all: all.median(system, figure) >= least)


def at_most(figure: str, system: str, most: float) -> Target:
    return Target(figure, system, f"at most {most:g}", lambda all: all.median(system, figure) <= most)


def beside(figure: str, system: str, wanted: str, share: float, other: str) -> Target:
    def is_met(all: Results) -> bool:
        return all.median(system, figure) >= share * all.median(other, figure)

    return Target(figure, system, wanted, is_met)


def undisturbed(system: str) -> Target:
    def is_met(all: Results) -> bool:
        return all.median(system, "crowded") >= 0.9 * all.median(system, "drain")

    return Target("crowded", system, "90 % of the plain drain", is_met)


TARGETS = (
    at_least("enqueue", "snappea", 10_000),
    beside("enqueue", "snappea", "no slower than Huey", 1.0, "huey"),
    beside("enqueue", "snappea-full", "85 % of sqlite3, FULL", 0.85, "sqlite-full"),
    at_least("drain", "snappea", 15_000),
    beside("drain", "snappea", "3 times Huey", 3.0, "huey"),
    undisturbed("snappea"),
    at_least("drain", "snappea-full", 10_000),
    at_least("stream", "snappea", 6_000),
    at_most("pick-up p50", "snappea", 1.0),
    at_most("pick-up p99", "snappea", 5.0),
    at_most("naps", "snappea", 2.6),
    at_most("idle CPU", "snappea", 2.5),
)


def missed(results: Results) -> Iterator[str]:
    """Yield a line for each target that was measured and is not met."""
    for target in TARGETS:
        try:
            is_met = target.is_met(results)
        except StatisticsError:  # not measured
            continue
        if not is_met:
            yield f"Missed: {target.figure}, {SYSTEMS[target.system].title}: {target.wanted}"
