"""The subcommand handover."""

from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ..conf import uses_celery
from ..models import Task
from .subcommands import Subcommands, filtered


def add(subcommands: Subcommands) -> None:
    """Add the subcommand."""
    about = "Hand over waiting tasks to Celery, each once. Repeat it to resume."
    parser = subcommands.add("handover", _hand_over, about, subcommands.filters)
    parser.add_argument("--dry-run", action="store_true", help="Only print what would be handed over.")
    again = "Send tasks again that no worker has taken yet. Each still runs only once."
    parser.add_argument("--again", action="store_true", help=again)


def _hand_over(command: BaseCommand, options: dict[str, Any]) -> None:
    if not uses_celery():
        raise CommandError('Celery is not the engine. Set SNAPPEA["ENGINE"] = "celery" first.')
    handover = import_module("snappea.celery.handover")  # here, because only this needs Celery
    send = import_module("snappea.celery.engine").send_handed_over
    tasks = filtered(Task.objects.all(), options)
    if not options["dry_run"]:
        command.stdout.write(f"Handed over {handover.hand_over(tasks, send, options['again'])}.")
    ids, left = handover.choose(tasks)
    if options["dry_run"]:
        command.stdout.write(f"Would hand over {len(ids)}.")
    for why, count in sorted(left.items()):
        command.stdout.write(f"Left {count} {why}.")
    if (waiting := handover.outstanding()) and not options["dry_run"]:
        command.stdout.write(f"{waiting} handed-over tasks wait for a Celery worker.")
