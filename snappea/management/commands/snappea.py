"""`manage.py snappea`: look at the queue, and steer it, from the command line."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.core.management.base import BaseCommand, CommandError, CommandParser

from snappea import schedules
from snappea.models import Schedule
from snappea.schedules import Plan


class Command(BaseCommand):
    """One subcommand for each thing that can be looked at or done."""

    help = "Looks at the queue, and steers it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the subcommands."""
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        about = "List the periodic tasks and their next three times; pause one, resume it, or fire it now."
        for_schedules = commands.add_parser("schedules", help=about, description=about)
        chosen = for_schedules.add_mutually_exclusive_group()
        chosen.add_argument("--pause", metavar="NAME", help="Let it enqueue nothing until it is resumed.")
        chosen.add_argument("--resume", metavar="NAME", help="Let it go on with its next time.")
        chosen.add_argument("--fire", metavar="NAME", help="Enqueue what it enqueues, now.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what was asked for. Exits with 1 if it cannot be done."""
        getattr(self, f"_do_{options['command']}")(options)

    def _do_schedules(self, options: dict[str, Any]) -> None:
        if name := options["pause"] or options["resume"]:
            if not (schedules.pause if options["pause"] else schedules.resume)(name):
                raise CommandError(
                    f"There is no schedule {name!r} in the table: it has those of the Foreman's last start."
                )
        elif name := options["fire"]:
            try:
                self.stdout.write(f"Enqueued {name} #{schedules.fire(name).id}")
            except LookupError as error:
                raise CommandError(str(error)) from error
        else:
            for plan, row, runs in schedules.listing():
                self.stdout.write("\n".join(_lines(plan, row, runs)))


def _lines(plan: Plan, row: Schedule | None, runs: list[datetime]) -> list[str]:
    """Return what is shown of a schedule."""
    when = ", ".join(_shown(run, plan.timezone) for run in runs)
    lines = [plan.name, f"    {plan.expression} ({plan.timezone})"]
    if plan.task_name != plan.name:
        lines.append(f"    task: {plan.task_name}")
    lines.append("    paused" if row and row.is_paused else f"    next: {when or 'never'}")
    if row is None:
        lines.append("    not known to a Foreman yet")
    elif row.last_run:
        lines.append(f"    last: {_shown(row.last_run, plan.timezone)}, {row.outcome()}")
    return lines


def _shown(moment: datetime, zone: str) -> str:
    return f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M:%S %Z}"
