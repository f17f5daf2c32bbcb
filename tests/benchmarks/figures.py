"""The results: the figures by name, their formats, and a file for them."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Figure(NamedTuple):
    """A figure: a column of the manual's tables, or a row of the limits."""

    title: str
    digits: int = 0


FIGURES = {
    "enqueue": Figure("enqueue, calls/s"),
    "bulk": Figure("10,000 at once, calls/s"),
    "drain": Figure("drain, tasks/s"),
    "crowded": Figure("drain with 100,000 scheduled, tasks/s"),
    "stream": Figure("enqueue and run at once, tasks/s"),
    "pick-up p50": Figure("pick-up p50, ms", 2),
    "pick-up p99": Figure("p99, ms", 1),
    "pick-up after idling": Figure("after idling, ms", 1),
    "naps": Figure("400 naps of 50 ms, s", 2),
    "idle CPU": Figure("idle processor time, ms/s", 1),
    "memory": Figure("memory, MB"),
    "writers 8": Figure("8 processes enqueue, calls/s"),
    "writers 8 p99": Figure("p99, ms", 1),
    "writers 8 slowest": Figure("slowest, ms"),
    "writers 16": Figure("16 processes enqueue, calls/s"),
    "writers 16 p99": Figure("p99, ms", 1),
    "writers 16 slowest": Figure("slowest, ms"),
}
LIMITS = {
    f"writers {count}{suffix}": Figure(f"{count} {'process' if count == 1 else 'processes'}, {what}", digits)
    for suffix, what, digits in (
        ("", "calls/s", 0),
        (" p50", "a call, p50, ms", 2),
        (" p99", "a call, p99, ms", 1),
        (" slowest", "a call, the slowest, ms", 0),
        (" refused", "calls refused after 5 s", 0),
    )
    for count in (1, 2, 4, 8, 16)
} | {
    f"backlog {number} {name}": Figure(f"{rows:,} rows ready, {what}", digits)
    for name, what, digits in (
        ("enqueue", "enqueue, calls/s", 0),
        ("drain", "drain of those before them, tasks/s", 0),
        ("size", "the file, MB", 0),
    )
    for number, rows in ((0, 100_000), (1, 1_000_000))
}


@dataclass
class Results:
    """Everything that was measured, with a description."""

    description: list[str] = field(default_factory=list)
    #: The values of the rounds, by system and figure.
    rounds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, system: str, figures: dict[str, float]) -> None:
        """Add the values of a round."""
        for figure, value in figures.items():
            self.rounds.setdefault(system, {}).setdefault(figure, []).append(value)

    def of(self, system: str, figure: str) -> list[float]:
        """Return the values of the rounds; empty if it was not measured."""
        return self.rounds.get(system, {}).get(figure, [])

    def median(self, system: str, figure: str) -> float:
        """Return the median of the rounds. Raises statistics.StatisticsError if there are none."""
        return statistics.median(self.of(system, figure))

    def has(self, systems: Iterable[str], figures: Iterable[str]) -> bool:
        """Tell whether any of these figures was measured of any of these systems."""
        figures = list(figures)
        return any(self.of(system, figure) for system in systems for figure in figures)

    def save(self, file: Path) -> None:
        """Write everything, as JSON that is easy to compare."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(vars(self), indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> "Results":
        """Read a file that `save()` wrote."""
        return cls(**json.loads(file.read_text()))
