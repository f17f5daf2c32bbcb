"""This checkout beside earlier revisions of it: `python -m tests.benchmarks --compare main`.

The measuring processes are those of this checkout; only the package `snappea` is that of the revision.
"""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from .figures import FIGURES, LIMITS, Results
from .systems import SYSTEMS
from .systems.base import ROOT, System
from .table import cell, row

#: What is compared unless `--systems` says otherwise.
COMPARED = ["snappea", "snappea-full"]


def revision(text: str) -> str:
    """Return the short name of a commit of this repository. Raises ValueError if there is none."""
    command = ["git", "rev-parse", "--short", "--verify", f"{text}^{{commit}}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        raise ValueError(found.stderr)
    return found.stdout.strip()


def beside(systems: Sequence[System], revisions: Sequence[str], directory: Path) -> list[System]:
    """Return each system as the revisions have it, and as it is here."""
    homes = {name: extract(name, directory) for name in revisions}
    return [each for system in systems for each in (*(system.at(*home) for home in homes.items()), system)]


def extract(name: str, directory: Path) -> Path:
    """Write the package as a commit has it, into a directory of its own."""
    home = directory / f"revision-{name}"
    home.mkdir()
    archive = ["git", "archive", name, "snappea"]
    packed = subprocess.run(archive, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", str(home)], check=True, input=packed)
    return home


def comparison(results: Results) -> Iterator[str]:
    """Yield all lines: a table for each system, with a column for each revision, and the failures."""
    yield from results.description
    for name in (name for name in results.rounds if name in SYSTEMS):
        *revisions, here = [each for each in results.rounds if each.partition("@")[0] == name]
        titles = (revision.partition("@")[2] for revision in revisions)
        yield ""
        yield row(SYSTEMS[name].title, *titles, "here", "change")
        yield f"|---|{'---:|' * (len(revisions) + 2)}"
        for key, figure in (FIGURES | LIMITS).items():
            rounds = [results.of(each, key) for each in (*revisions, here)]
            if all(rounds):
                change = _change(results.median(revisions[-1], key), results.median(here, key))
                yield row(figure.title, *(cell(values, figure) for values in rounds), change)
    for failure in results.failures:
        yield f"Failed: {failure}"


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.0%}" if before else "-"
