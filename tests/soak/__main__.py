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

from tests.site import Site

NUM_WORKERS = 6


def main() -> int:
    """Run a soak in a new directory, which is kept if a promise was broken."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as at Ctrl-C: clean up
    print(f"A soak of {options.minutes:g} minutes with --seed {options.seed}.", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="snappea-soak-"))
    site = Site(directory)
    disk = None if options.no_small_disk else _small_disk(directory / "disk", options.minutes)
    try:
        found = _soak(site, options, disk)
    finally:
        site.end()
        if disk:
            subprocess.run(["umount", "-l", disk], check=False)
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
    parser.add_argument("--minutes", type=float, default=2.0, help="for how long (default: 2)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="chooses the faults")
    parser.add_argument("--calm", action="store_true", help="only faults that a Foreman survives")
    parser.add_argument(
        "--no-small-disk", action="store_true", help="do not mount a small disk, so it is never full"
    )
    return parser.parse_args()


def _small_disk(place: Path, minutes: float) -> Path | None:
    """Mount a file system that can be filled, with room for what is kept; None if not permitted."""
    place.mkdir()
    size = f"size={64 + int(4 * minutes)}m"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"NOT TRIED: a full disk, because none can be mounted here: {done.stderr.strip()}")
        return None
    return place


def _soak(site: Site, options: argparse.Namespace, disk: Path | None) -> list[str]:
    """Run it, print a summary, and return the broken promises."""
    site.database = (disk or site.directory) / "snappea.sqlite3"
    site.variables = {
        "SNAPPEA_TEST_DATABASE": str(site.database),
        "SNAPPEA_TEST_APPS": "tests.clock.SettableClock tests.soak",
    }
    site.settings |= {"SYNCHRONOUS": "FULL", "NUM_WORKERS": NUM_WORKERS, "GRACEFUL_TIMEOUT": 1.0}
    os.environ.update(site.environment())
    django.setup()
    from .course import STORM, Course  # what it imports needs the apps

    began = time.monotonic()
    storm = 0.0 if options.calm else STORM
    course = Course(site, random.Random(options.seed), options.minutes * 60, disk, storm)
    found = course.run()
    print(f"\n{time.monotonic() - began:.0f} s:", *course.report(), sep="\n- ")
    return found


if __name__ == "__main__":
    sys.exit(main())
