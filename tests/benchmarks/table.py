"""The tables of results, in Markdown, as the manual shows them."""

import statistics
from collections.abc import Collection, Iterator

from .figures import FIGURES, LIMITS, Figure, Results
from .systems import SYSTEMS

#: The columns of the manual's tables.
COLUMNS = (
    ("enqueue", "bulk", "drain", "crowded", "stream"),
    ("pick-up p50", "pick-up p99", "pick-up after idling", "naps", "idle CPU", "memory"),
    tuple(f"writers {count}{what}" for count in (8, 16) for what in ("", " p99", " slowest")),
)
#: The figures that `--limits` alone measures; with them, those of 8 and 16 processes are in its own table.
ON_REQUEST = [name for name in LIMITS if not name.startswith(("writers 8", "writers 16"))]
#: The figures that are compared with a limit, and the systems.
SHARES = (*COLUMNS[0], "writers 8", "writers 16")
DISTANCES = {"snappea": "sqlite", "snappea-full": "sqlite-full"}
#: What the page on scaling compares: the queue in SQLite and in PostgreSQL.
SCALES = ("snappea", "snappea-full", "snappea-pg", "snappea-pg-3", "snappea-pg-10")
SCALED = ("enqueue", "drain", "pick-up p50")


def report(results: Results) -> Iterator[str]:
    """Yield all lines: the machine, the tables, and the failures."""
    yield from results.description
    has_limits = results.has(SYSTEMS, ON_REQUEST)
    for every in COLUMNS[: 2 if has_limits else 3]:
        if columns := [column for column in every if results.has(SYSTEMS, [column])]:
            yield ""
            yield from _peers(results, columns)
    if columns := [column for column in SHARES if results.has(DISTANCES.values(), [column])]:
        yield ""
        yield from _distances(results, columns)
    if has_limits:
        yield ""
        yield from _limits(results)
    for failure in results.failures:
        yield ""
        yield f"Failed: {failure}"


def _peers(results: Results, columns: Collection[str]) -> Iterator[str]:
    """Yield a table with a row for each system: medians, and the extremes if there are several rounds."""
    yield row("", "tasks in", "workers", *(FIGURES[column].title for column in columns))
    yield f"|---|---|---|{'---:|' * len(columns)}"
    for name, system in SYSTEMS.items():
        if results.has([name], columns):
            title = f"**{system.title}**" if system.family == "snappea" else system.title
            cells = (cell(results.of(name, column), FIGURES[column]) for column in columns)
            yield row(title, system.store, system.workers, *cells)


def _distances(results: Results, columns: Collection[str]) -> Iterator[str]:
    """Yield a table that compares Snappea with SQLite alone."""
    yield row("share of sqlite3 alone", *(FIGURES[column].title.rpartition(", ")[0] for column in columns))
    yield f"|---|{'---:|' * len(columns)}"
    for name, limit in DISTANCES.items():
        if results.has([name], columns):
            shares = [
                f"{results.median(name, column) / results.median(limit, column):.0%}"
                if results.of(name, column) and results.of(limit, column)
                else "-"
                for column in columns
            ]
            yield row(f"**{SYSTEMS[name].title}**", *shares)


def scales(results: Results) -> Iterator[str]:
    """Yield the table of the page on scaling: medians only."""
    names = [name for name in SCALES if results.has([name], SCALED)]
    yield row("", *(f"{SYSTEMS[name].title}, {SYSTEMS[name].store}" for name in names))
    yield f"|---|{'---:|' * len(names)}"
    for column in SCALED:
        medians = (
            cell([results.median(n, column)], FIGURES[column]) if results.of(n, column) else "-"
            for n in names
        )
        yield row(FIGURES[column].title, *medians)


def _limits(results: Results) -> Iterator[str]:
    """Yield a table with a row for each limit."""
    systems = [system for name, system in SYSTEMS.items() if results.has([name], LIMITS)]
    yield row("", *(f"{system.title}, {system.store}" for system in systems))
    yield f"|---|{'---:|' * len(systems)}"
    for name, figure in LIMITS.items():
        if results.has(SYSTEMS, [name]):
            yield row(figure.title, *(cell(results.of(system.name, name), figure) for system in systems))


def row(*cells: str) -> str:
    """Write a row of a table."""
    return f"| {' | '.join(cells)} |"


def cell(rounds: list[float], figure: Figure) -> str:
    """Write the median and the extremes."""
    if not rounds:
        return "-"
    median, least, most = (
        f"{value:,.{figure.digits}f}" for value in (statistics.median(rounds), min(rounds), max(rounds))
    )
    return median if least == most else f"{median} ({least} to {most})"
