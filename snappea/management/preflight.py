"""The subcommand preflight: whether the calls in the queue fit the code."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ..log import clean
from ..monitoring.preflight import Problem, examine
from ..queue.availability import Outdated, trouble
from . import console
from .subcommands import Subcommands


def add(subcommands: Subcommands) -> None:
    """Add the subcommand."""
    about = "Check that the calls in the queue and the schedules fit the code. Exits with 0 or 1."
    preflight = subcommands.add("preflight", _preflight, about, subcommands.as_json)
    no_types = "Do not compare arguments with annotations."
    preflight.add_argument("--no-types", dest="types", action="store_false", help=no_types)


def _preflight(command: BaseCommand, options: dict[str, Any]) -> None:
    outdated = trouble()
    if outdated and not isinstance(outdated, Outdated):
        raise outdated
    report = examine(options["types"])
    if outdated:
        command.stderr.write(str(outdated))
    problems = sorted(report.problems.values(), key=lambda problem: problem[:2])
    if options["json"]:
        found = [problem._asdict() for problem in problems]
        command.stdout.write(console.as_json({"problems": found, "checked": report.checked}))
    elif problems:
        command.stdout.write("\n".join(line for problem in problems for line in _lines(problem)))
    else:
        command.stdout.write(f"All calls fit the code ({_counts(report.checked)}).")
    if problems:
        raise CommandError(f"With this code these calls fail or never run. Problems: {len(problems)}.")


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{status}: {count:,}" for status, count in found.items()) or "there are none"


def _lines(problem: Problem) -> Iterator[str]:
    first = f"#{problem.oldest}" if isinstance(problem.oldest, int) else problem.oldest
    since = f", {console.at(problem.since)}" if problem.since else ""
    yield clean(f"{problem.task}: {problem.what}")
    yield clean(f"    {_counts(problem.rows)} (oldest: {first}{since})")
    yield clean(f"    {problem.cure}") + "\n"
