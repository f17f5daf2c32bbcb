"""Try a fault at each point of a short life of a queue, and report which promises it broke.

Kills are at each call that changes a file or makes a change durable, and before each line around the logbook.
Errors are returned by each call that can fail. Exits with 1 if a promise was broken.
"""

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import django

from . import kernel
from .points import TARGETS, Point, of_errors, of_kills, of_lines

KINDS = ("kills", "lines", "errors")


def main() -> int:
    """Try the chosen points."""
    options = _options()
    if not kernel.IS_SUPPORTED:
        print("NOT TRIED: this needs Linux on x86-64.")
        return 0
    place = Path(tempfile.mkdtemp(prefix="snappea-points-"))
    (place / "first").mkdir()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.crashpoints.settings"
    os.environ["SNAPPEA_TEST_DIR"] = str(place / "first")
    try:
        django.setup()
        return _run(place, options)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crashpoints", description=__doc__)
    add = parser.add_argument
    add("points", nargs="*", type=Point.of, help="only these, such as FULL/foreman/pwrite64=EIO/17")
    add("--all", dest="every", action="store_const", const=1, help="every point")
    add("--every", type=int, default=10, metavar="N", help="every N-th point (default: 10)")
    add("--first", type=int, default=0, metavar="N", help="the first of them (default: 0)")
    add("--kinds", nargs="+", choices=KINDS, default=KINDS)
    add("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    add("--synchronous", nargs="+", choices=("FULL", "NORMAL"), default=("FULL", "NORMAL"))
    add("--jobs", type=int, default=os.cpu_count(), metavar="N", help="at once (default: one per core)")
    add("-v", "--verbose", action="store_true", help="name each point, and the call that it is")
    return parser.parse_args()


def _run(place: Path, options: argparse.Namespace) -> int:
    from .life import Life

    began, reached, broken = time.monotonic(), 0, 0
    Life(place / "first", Point("NORMAL", "", "kill", 0)).prepare()
    gc.freeze()
    points = options.points or list(_points(place, options))
    chosen = options.points or points[options.first :: options.every]
    with get_context("fork").Pool(options.jobs) as pool:
        for point, hit, found in pool.imap_unordered(partial(_try, place), chosen):
            reached += bool(hit)
            broken += bool(found)
            if found or options.verbose:
                print(f"{point} ({hit or 'not reached'})", *found, sep="\n    ", flush=True)
    tried = f"{reached} of {len(points)} points in {time.monotonic() - began:.0f} s"
    print(f"{tried}, {len(chosen) - reached} not reached; {broken} broke a promise.")
    return bool(broken)


def _points(place: Path, options: argparse.Namespace) -> Iterator[Point]:
    """Count the calls of lives without a fault, and yield all points."""
    for mode in options.synchronous:
        for target in options.targets:
            if "kills" in options.kinds:
                yield from of_kills(mode, target, _count(place, Point(mode, target, "kill", 0)))
            if "lines" in options.kinds and target == "foreman":
                yield from of_lines(mode, _count(place, Point(mode, target, "line", 0))["line"])
            if "errors" in options.kinds:
                yield from of_errors(mode, target, _count(place, Point(mode, target, "any", 0)))


def _count(place: Path, point: Point) -> Counter[str]:
    from .life import Life

    life = Life(place / "count", point)
    found = life.run(place / "first")
    shutil.rmtree(life.directory)
    if found:
        sys.exit("\n".join(["A life without a fault breaks a promise.", *found]))
    return life.seen


def _try(place: Path, point: Point) -> tuple[Point, str, list[str]]:
    """Return the point, what was hit, and the broken promises."""
    from .life import Life

    life = Life(place / f"{os.getpid()}", point)
    try:
        found = life.run(place / "first")
        return point, life.hit, found
    finally:
        shutil.rmtree(life.directory)


if __name__ == "__main__":
    sys.exit(main())
