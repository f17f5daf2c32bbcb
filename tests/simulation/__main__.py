"""Simulate lives until the time is up, or a promise is broken. Then the exit code is 1."""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BURSTS = 8


def main() -> int:
    """Run what the command line says."""
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != "0":  # or the order of a set would differ each time
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:], f"--seed={options.seed}"],
        )
    if hasattr(os, "sched_setaffinity"):  # to wake a thread on another core takes a hundred times as long
        os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="snappea-simulation-", dir=memory) as directory:
        return _simulate(options, Path(directory))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for how long (default: 1)")
    parser.add_argument("--lives", type=int, default=10**9, help="how many at most")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first life")
    parser.add_argument("--template", type=Path, help="a migrated and empty database to copy")
    parser.add_argument("--plant", choices=("fence", "groups", "cells"), help="a fault to plant")
    parser.add_argument("--as-found", action="store_true", help="do not look for a shorter list of events")
    parser.add_argument("--history", action="store_true", help="show all that has happened")
    return parser.parse_args()


def _simulate(options: argparse.Namespace, directory: Path) -> int:
    template = _prepare(options, directory)
    from . import clients
    from .planted import PLANTED

    if options.plant:
        PLANTED[options.plant]()
    give_up, counts, hours = time.monotonic() + options.minutes * 60, Counter[str](), 0.0
    began, lives, broken = time.process_time(), 0, ""
    while not broken and lives < options.lives and time.monotonic() < give_up:
        seed = options.seed + lives
        events = clients.script(str(seed), BURSTS)
        life = _run(seed, events, template, directory)
        lives, broken, hours = lives + 1, life.broken, hours + (life.timeline.now - 1000) / 3600
        counts += life.ledger.counts
        if options.history:
            print("\n".join(life.ledger.history))
    spent = time.process_time() - began
    print(
        f"{lives} lives from --seed {options.seed} on: {hours:.1f} hours in {spent:.1f} s of CPU time,",
        end=" ",
    )
    print(f"{hours / spent:.2f} hours per second; {counts['commits']:,} commits, {counts['runs']:,} runs.")
    if broken:
        print(f"\nBROKEN with --seed {seed}: {broken}", flush=True)
        if not options.as_found:
            _report(seed, events, broken, template, directory)
    return bool(broken)


def _prepare(options: argparse.Namespace, directory: Path) -> Path:
    """Set up Django, and return a migrated database."""
    os.environ.update(DJANGO_SETTINGS_MODULE="tests.settings", SNAPPEA_TEST_DIR=str(directory))
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connections

    from .database import Connection

    settings.SNAPPEA = {"SYNCHRONOUS": "NORMAL", "QUEUES": {"mail": {"max_concurrency": 2}, "urgent": {}}}
    settings.TASKS = {}
    settings.LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "CRITICAL"}}
    django.setup()
    import logging

    logging.disable(logging.CRITICAL)
    connections.settings["snappea"]["OPTIONS"]["factory"] = Connection
    template: Path = options.template or directory / "snappea.sqlite3"
    if not options.template:
        call_command("migrate", using="snappea", verbosity=0)
    connections["snappea"].close()
    from snappea.tasks import frameworks
    from snappea.tasks.discovery import discover

    discover()
    frameworks.clear()  # django.tasks sends its signals from a thread of its own
    return template


def _run(seed: int, events: Sequence[Any], template: Path, directory: Path) -> Any:
    from django.db import connections

    from .life import Life, simulated

    home = directory / "life"
    home.mkdir()
    path = str(home / "snappea.sqlite3")
    shutil.copy(template, path)
    connections.settings["snappea"]["NAME"] = path
    life = Life(str(seed), events, path)
    with simulated(life):
        life.run()
    shutil.rmtree(home)
    return life


def _report(seed: int, events: Sequence[Any], broken: str, template: Path, directory: Path) -> None:
    from .shrinking import shrink

    fewer = shrink(events, lambda some: str(_run(seed, some, template, directory).broken), broken)
    life = _run(seed, fewer, template, directory)
    print(f"\nOf {len(events)} events, these {len(fewer)} break it:\n")
    print("\n".join(map(str, fewer)))
    print("\nWhat happens last:\n")
    print("\n".join(list(life.ledger.history)[-60:]))


if __name__ == "__main__":
    sys.exit(main())
