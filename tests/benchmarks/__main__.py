"""Measure everything in rounds, and print a table."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path

from tests.servers import Postgres

from .machine import Disturbance, machine
from .measurements import MEASUREMENTS, QUICK, Bench, Sizes
from .systems import LIMITS, SYSTEMS
from .systems.base import System
from .systems.postgres import PORT
from .table import Results, table
from .targets import FREE, PINNED
from .templates import Templates
from .trial import TrialFailed

FAMILIES = tuple(dict.fromkeys(system.family for system in SYSTEMS.values()))


def main() -> int:
    """Return 0 if everything could be measured."""
    options = _options()
    sizes = QUICK if options.quick else Sizes()
    systems = [
        system
        for system in _installed(options.systems, options.postgres)
        if not system.measured.isdisjoint(options.only)
    ]
    for system in systems if options.quick and not options.postgres else ():
        system.worker_processes = 1
    results: Results = {}
    failures: list[str] = []
    disturbance = Disturbance()
    with (
        tempfile.TemporaryDirectory(prefix="snappea-benchmarks-") as home,
        _server(options.postgres) as server,
    ):
        description = [*machine(Path(home), systems), *server]
        bench = Bench(sizes, Templates(Path(home), sizes.tasks, sizes.behind))
        for number, name, mode, system in _plan(options, systems):
            began = time.monotonic()
            _measure(bench, name, mode, system, results, failures)
            _say(f"round {number + 1}: {name}, {system.name}, {mode}: {time.monotonic() - began:.1f} s")
    description.append(f"Other processes had {disturbance.share():.0%} of its processor time meanwhile.")
    print(*description, "", *table(results, sizes), sep="\n")
    for failure in failures:
        print(f"\nFailed: {failure}")
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="how often; the median counts (default: 3)")
    parser.add_argument("--only", type=_names_among(MEASUREMENTS), help=", ".join(MEASUREMENTS))
    parser.add_argument("--systems", type=_names_among((*FAMILIES, *SYSTEMS)), help=", ".join(FAMILIES))
    parser.add_argument("--quick", action="store_true", help="only to see that everything still runs")
    parser.add_argument("--postgres", action="store_true", help="the queues on PostgreSQL, instead of others")
    parser.add_argument("--limits", action="store_true", help="how far Snappea goes, instead of the rest")
    parser.set_defaults(systems=list(FAMILIES))
    options = parser.parse_args()
    options.only = options.only or [name for name in MEASUREMENTS if (name in LIMITS) == options.limits]
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def _names_among(known: Collection[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
        return text.split(",")

    return names


@contextmanager
def _server(is_wanted: bool) -> Iterator[list[str]]:
    """Have a PostgreSQL server in the meantime if it is wanted; yields lines that describe it."""
    if not is_wanted:
        yield []
        return
    with closing(Postgres(is_durable=True)) as server:
        os.environ[PORT] = str(server.port)
        with server.connect("postgres") as connection:
            version = connection.info.parameter_status("server_version")
        yield [f"PostgreSQL {version}, which waits for the disk, and else as it comes; on the same machine."]


def _installed(wanted: list[str], on_postgres: bool) -> Iterator[System]:
    """Yield the wanted systems, and say which cannot be measured."""
    for system in SYSTEMS.values():
        if system.is_on_postgres == on_postgres and (system.name in wanted or system.family in wanted):
            if missing := system.missing():
                _say(f"{system.title} is left out: {', '.join(missing)} is not installed ({system.cure}).")
            else:
                yield system


def _plan(options: argparse.Namespace, systems: list[System]) -> Iterator[tuple[int, str, str, System]]:
    """Yield what to measure, by round: one system after the other."""
    for name in options.only:
        if name == "idle":  # takes long and hardly varies
            rounds, modes = 1, [FREE]
        else:
            is_free = options.quick or options.postgres or name in LIMITS  # a server is not pinned
            rounds, modes = options.rounds, [FREE] if is_free else [PINNED, FREE]
        for number, mode, system in product(range(rounds), modes, systems):
            if name in system.measured:
                yield number, name, mode, system


def _measure(
    bench: Bench, name: str, mode: str, system: System, results: Results, failures: list[str]
) -> None:
    cores = os.sched_getaffinity(0)
    try:
        figures = MEASUREMENTS[name](bench, system, {min(cores)} if mode == PINNED else cores)
    except (TrialFailed, OSError) as error:
        failures.append(f"{name}, {system.name}, {mode}: {error}")
        _say(failures[-1])
        return
    for figure, value in figures.items():
        results.setdefault((figure, system.name, mode), []).append(value)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
