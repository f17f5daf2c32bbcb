"""The subcommand check."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ..monitoring import diagnostics
from .subcommands import Subcommands


def add(subcommands: Subcommands) -> None:
    """Add the subcommand."""
    about = "Check settings, database, disk and Foreman, and run a task. Exits with 0 or 1."
    check = subcommands.add("check", _check, about)
    check.add_argument("--timeout", type=float, default=10.0, metavar="S", help="Seconds to wait (10).")
    check.add_argument("--queue", default="default", help='The queue of the task ("default").')


def _check(command: BaseCommand, options: dict[str, Any]) -> None:
    is_well = True
    for finding in diagnostics.examine(options["queue"], options["timeout"]):
        is_well = is_well and finding.is_well
        (command.stdout if finding.is_well else command.stderr).write(str(finding))
    if not is_well:
        raise CommandError("Something is wrong.")
