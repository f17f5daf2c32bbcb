"""Measure everything in rounds, and print the tables."""

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

from tests.servers import Postgres, program

from . import floors, readme
from .charts import draw
from .compare import COMPARED, beside, comparison, revision
from .environments import HOME, NotInstalled, python_of
from .figures import Results
from .machine import Disturbance, machine
from .measurements import ALL_WRITERS, MEASUREMENTS, QUICK, Bench, Sizes
from .systems import BULK, LIMITS, SYSTEMS
from .systems.base import EVERYTHING, System
from .systems.postgres import PORT
from .table import report
from .targets import missed
from .templates import Templates
from .trial import Trial

#: What else must be installed.
SERVERS = {"Redis": "redis-server", "PostgreSQL": "initdb"}
FAMILIES = tuple(dict.fromkeys(system.family for system in SYSTEMS.values()))


def main() -> int:
    """Return 0 if everything could be measured."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process that was started ends
    if options.floors:
        shares = floors.measure()
        print(*floors.report(shares), sep="\n")
        return int(bool(floors.missed(shares)))
    results = Results.load(options.load) if options.load else measure(options)
    print(*(comparison if options.compare else report)(results), sep="\n")
    for line in missed(results):
        _say(line)
    if options.out:
        results.save(options.out / "figures.json")
        draw(results, options.out)
    if options.readme:
        readme.renew(results)
    return 1 if results.failures else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="how often; the median counts (default: 3)")
    parser.add_argument("--only", type=_names_among(MEASUREMENTS), help=", ".join(MEASUREMENTS))
    parser.add_argument("--systems", type=_names_among((*FAMILIES, *SYSTEMS)), help=", ".join(FAMILIES))
    parser.add_argument("--quick", action="store_true", help="only to see that everything still runs")
    parser.add_argument("--behind", type=int, metavar="N", help="how many tasks are scheduled in `crowded`")
    parser.add_argument("--limits", action="store_true", help="how far Snappea goes, instead of the rest")
    parser.add_argument("--floors", action="store_true", help="only whether Snappea is far too slow, for CI")
    parser.add_argument(
        "--compare",
        action="append",
        type=revision,
        metavar="REV",
        help="this checkout beside an earlier commit, without the peers",
    )
    parser.add_argument("--environments", type=Path, default=HOME, help="where to keep them (%(default)s)")
    parser.add_argument("--load", type=Path, metavar="FILE", help="measure nothing: take what --out wrote")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where figures.json and the charts go")
    parser.add_argument("--readme", action="store_true", help="put all into the manual")
    options = parser.parse_args(arguments)
    options.systems = options.systems or _usual_systems(options)
    usual = LIMITS if options.limits else EVERYTHING | BULK
    options.only = options.only or [name for name in MEASUREMENTS if name in usual]
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.out = options.out or (readme.DIRECTORY if options.readme else None)
    return options


def _usual_systems(options: argparse.Namespace) -> list[str]:
    if options.compare:
        return COMPARED
    if options.limits:
        return [name for name, system in SYSTEMS.items() if system.measured >= LIMITS]
    return list(FAMILIES)


def _names_among(known: Collection[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
        return text.split(",")

    return names


def measure(options: argparse.Namespace) -> Results:
    """Measure what the options say, all systems one after the other in each round."""
    results, sizes, disturbance = Results(), QUICK if options.quick else Sizes(), Disturbance()
    if options.limits:
        sizes = replace(sizes, writers=ALL_WRITERS)
    if options.behind:
        sizes = replace(sizes, behind=options.behind)
    systems = list(_installed(options, results))
    with (
        tempfile.TemporaryDirectory(prefix="snappea-benchmarks-") as home,
        _server(systems) as server,
    ):
        if options.compare:
            systems = beside(systems, options.compare, Path(home))
        results.description = [*machine(Path(home), systems), *server]
        if options.behind:
            results.description.append(f"{options.behind:,} tasks are scheduled instead of 100,000.")
        bench = Bench(sizes, Templates(Path(home), sizes.tasks, 2 * sizes.seconds, sizes.behind))
        for number, name, system in plan(options.only, options.rounds, systems):
            began = time.monotonic()
            try:
                results.add(system.name, MEASUREMENTS[name](bench, system))
            except Exception as error:  # one system failed; the figures of the others are still useful
                results.failures.append(f"{name}, {system.name}: {error}")
                traceback.print_exc()
            _say(f"round {number + 1}: {name}, {system.name}: {time.monotonic() - began:.1f} s")
            if options.out:
                results.save(options.out / "figures.json")
    others = disturbance.share(Trial.inherited)
    results.description.append(f"Other processes had {others:.0%} of its processor time meanwhile.")
    return results


def plan(only: list[str], rounds: int, systems: list[System]) -> Iterator[tuple[int, str, System]]:
    """Yield what to measure: in each round, for each measurement, one system after the other."""
    for number, name in product(range(rounds), only):
        if name == "idle" and number:  # it takes long and hardly varies
            continue
        for system in reversed(systems) if number % 2 else systems:  # no system is always the first
            if name in system.measured:
                yield number, name, system


def _installed(options: argparse.Namespace, results: Results) -> Iterator[System]:
    """Yield the wanted systems, each with an environment. One that cannot be installed is a failure."""
    for system in SYSTEMS.values():
        names = {system.name} if options.compare or options.limits else {system.name, system.family}
        if names & set(options.systems) and system.measured & set(options.only):
            try:
                if (needed := SERVERS.get(system.store)) and not program(needed):
                    raise NotInstalled(f"{needed} is not installed")
                system.python = python_of(system, options.environments)
                yield system
            except NotInstalled as error:
                results.failures.append(f"{system.title} is left out: {error}")
                _say(results.failures[-1])


@contextmanager
def _server(systems: Iterable[System]) -> Iterator[list[str]]:
    """Run a PostgreSQL server during the block if one is needed; yields lines that describe it."""
    if not any(system.store == "PostgreSQL" for system in systems):
        yield []
        return
    with closing(Postgres(is_durable=True)) as server:
        os.environ[PORT] = str(server.port)
        with server.connect("postgres") as connection:
            version = connection.info.parameter_status("server_version")
        yield [f"PostgreSQL {version} waits for the disk, Redis does not; both are on the same machine."]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
