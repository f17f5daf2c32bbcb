"""The subcommand move."""

from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ..conf import alias, uses_celery
from ..errors import SnappeaError
from ..queue.database import FAULTS
from ..queue.move import Side, move, queue_in, side, tables
from ..queue.quarantine import quarantined
from .console import Progress
from .subcommands import Subcommands


def add(subcommands: Subcommands) -> None:
    """Add the subcommand."""
    about = "Move the queue to another database. Repeat it to resume, and for calls that came later."
    parser = subcommands.add("move", _move, about)
    parser.add_argument("--to", required=True, metavar="ALIAS", help="The database in DATABASES to move to.")
    start = "The database to move from. Default: the queue's."
    parser.add_argument("--from", dest="start", metavar="ALIAS", help=start)
    parser.add_argument("--dry-run", action="store_true", help="Only print what would be moved.")


def _move(command: BaseCommand, options: dict[str, Any]) -> None:
    start, end = options["start"] or alias(), options["to"]
    if start == end:
        raise CommandError(f"The queue is in {end!r}. Name the database to move from: --from ALIAS")
    if uses_celery():
        raise CommandError("Celery is the engine, and its workers use the queue's tables.")
    sides = [source := side(start)]
    try:
        if options["dry_run"]:
            for table in tables():
                command.stdout.write(f"Would move {source.count(table.name):,} rows of {table.name}.")
            return
        sides.append(target := side(end, creates=True))
        with queue_in(start):
            quarantined(partial(_run, command, source, target))
    except SnappeaError:
        raise
    except FAULTS as error:
        raise CommandError(f"The move has stopped: {error}. Nothing is lost. Run it again.") from error
    finally:
        for each in sides:
            each.leave()


def _run(command: BaseCommand, source: Side, target: Side) -> None:
    names = [table.name for table in tables()]
    progress, moved = Progress(command.stderr, "Moved", lambda: sum(map(source.count, names))), 0
    for count in move(source, target):
        progress(moved := moved + count)
    progress.clear()
    command.stdout.write(f"Moved {moved:,} rows from {source.name!r} to {target.name!r}.")
    if left := source.count("snappea_task"):
        why = "an identical unique call waits there, or the Foreman has just died"
        raise CommandError(f"Left {left:,} tasks, because {why}. Run this again in a minute.")
