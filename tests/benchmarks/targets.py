"""What Snappea has to reach. Nothing else asserts a time: these are looked at, not tested."""

from collections.abc import Callable
from typing import NamedTuple

PINNED, FREE = "pinned", "free"
#: The median of a figure of a system, both by name.
Medians = Callable[[str, str], float]


class Figure(NamedTuple):
    """A row of the table: what is measured, and how its numbers are written."""

    title: str
    digits: int = 0


FIGURES = {
    "enqueue": Figure("enqueue, calls/s"),
    "drain": Figure("drain, tasks/s"),
    "release": Figure("drain, from outside, tasks/s"),
    "stream": Figure("enqueue and run at once, tasks/s"),
    "call p99": Figure("a call during that, p99, ms", 2),
    "call slowest": Figure("a call during that, the slowest, ms", 2),
    "pick-up p50": Figure("pick-up, p50, ms", 2),
    "pick-up p99": Figure("pick-up, p99, ms", 2),
    "naps": Figure("{naps} naps of 50 ms, s", 3),
    "idle CPU": Figure("{idle:g} s idle: processor time, s", 2),
    "idle bytes": Figure("{idle:g} s idle: bytes written"),
    "idle changes": Figure("{idle:g} s idle: files changed"),
    "memory": Figure("memory, MB"),
    "pick-up after idling": Figure("pick-up after idling, ms", 2),
}


FIGURES |= {
    f"writers {count}{suffix}": Figure(f"{count} {'process' if count == 1 else 'processes'}, {what}", digits)
    for suffix, what, digits in (
        ("", "calls/s", 0),
        (" p50", "a call, p50, ms", 2),
        (" p99", "a call, p99, ms", 1),
        (" slowest", "a call, the slowest, ms", 0),
        (" refused", "calls refused after 5 s", 0),
    )
    for count in (1, 2, 4, 8, 16)
}
FIGURES |= {
    f"backlog {number} {name}": Figure(title.replace("rows", f"{{backlogs[{number}]:,}}"), digits)
    for name, title, digits in (
        ("enqueue", "enqueue with rows ready, calls/s", 0),
        ("drain", "drain with rows behind, tasks/s", 0),
        ("size", "size of rows on the disk, MB", 0),
    )
    for number in (0, 1)
}


class Target(NamedTuple):
    """What a figure of a system has to be."""

    figure: str
    system: str
    wanted: str
    is_met: Callable[[Medians], bool]
    modes: tuple[str, ...] = (PINNED, FREE)


def at_least(figure: str, system: str, least: float) -> Target:
    return Target(figure, system, f"at least {least:,.0f}", lambda median: median(figure, system) >= least)


def at_most(figure: str, system: str, most: float, *modes: str) -> Target:
    def is_met(median: Medians) -> bool:
        return median(figure, system) <= most

    return Target(figure, system, f"at most {most:g}", is_met, modes or (PINNED, FREE))


def beside(figure: str, system: str, wanted: str, share: float, other: str) -> Target:
    def is_met(median: Medians) -> bool:
        return median(figure, system) >= share * median(figure, other)

    return Target(figure, system, wanted, is_met)


TARGETS = (
    at_least("enqueue", "snappea", 10_000),
    beside("enqueue", "snappea", "no slower than Huey", 1.0, "huey"),
    beside("enqueue", "snappea-full", "85 % of sqlite3, FULL", 0.85, "sqlite-full"),
    at_least("drain", "snappea", 15_000),
    beside("drain", "snappea", "3 times Huey", 3.0, "huey"),
    beside("drain", "snappea-ready", "90 % of the plain drain", 0.9, "snappea"),
    beside("drain", "snappea-scheduled", "90 % of the plain drain", 0.9, "snappea"),
    at_least("drain", "snappea-full", 10_000),
    at_least("stream", "snappea", 6_000),
    at_most("pick-up p50", "snappea", 0.6, PINNED),
    at_most("pick-up p99", "snappea", 3.0, PINNED),
    at_most("naps", "snappea", 2.6),
    at_most("idle CPU", "snappea", 0.05),
    at_most("idle bytes", "snappea", 0),
    at_most("idle changes", "snappea", 0),
)
