"""Run a soak, and report. Exits with 0 if every promise was kept, else with 1."""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import django

from .ground import Ground
from .postgres import PostgresGround
from .sqlite import SqliteGround, small_disk


def main() -> int:
    """Run a soak in a new directory, which is kept if a promise was broken."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as at Ctrl-C: clean up
    chosen = f"--database {options.database} --seed {options.seed}"
    print(f"A soak of {options.minutes:g} minutes with {chosen}.", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="snappea-soak-"))
    ground = _ground(directory, options)
    try:
        found = _soak(ground, options)
    finally:
        ground.site.end()
        ground.close()
    if not found:
        subprocess.run(["rm", "-rf", directory], check=True)
        print("\nAll promises were kept.")
        return 0
    print(
        f"\nBROKEN PROMISES ({len(found)}); ledger and logs are in {directory}, the seed is {options.seed}:"
    )
    for text, count in Counter(found).most_common(40):
        print(f"- {text}" + (f" ({count} times)" if count > 1 else ""))
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--minutes", type=float, default=2.0, help="for how long (default: 2)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="chooses the faults")
    parser.add_argument("--calm", action="store_true", help="only faults that a Foreman survives")
    parser.add_argument(
        "--no-small-disk", action="store_true", help="do not mount a small disk, so it is never full"
    )
    return parser.parse_args()


def _ground(directory: Path, options: argparse.Namespace) -> Ground:
    if options.database == "postgres":
        return PostgresGround(directory)
    disk = None if options.no_small_disk else small_disk(directory / "disk", options.minutes)
    return SqliteGround(directory, disk)


def _soak(ground: Ground, options: argparse.Namespace) -> list[str]:
    """Run it, print a summary, and return the broken promises."""
    site = ground.site
    site.variables["SNAPPEA_TEST_APPS"] = "tests.clock.SettableClock tests.soak"
    site.settings |= {"NUM_WORKERS": ground.workers, "GRACEFUL_TIMEOUT": 1.0}
    os.environ.update(site.environment())
    django.setup()
    from .course import STORM, Course  # what it imports needs the apps

    began = time.monotonic()
    storm = 0.0 if options.calm else STORM
    course = Course(ground, random.Random(options.seed), options.minutes * 60, storm)
    found = course.run()
    print(f"\n{time.monotonic() - began:.0f} s:", *course.report(), sep="\n- ")
    return found


if __name__ == "__main__":
    sys.exit(main())
