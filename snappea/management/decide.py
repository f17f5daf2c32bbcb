"""Subcommands that change tasks, queues and limits: requeue, cancel, delete, purge, pause, resume, limit."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet
from django.utils import timezone

from .. import limits
from ..log import clean
from ..models import MOVES, Status, Task
from ..queue import operations
from . import console
from .subcommands import SPANS, Subcommands, filtered, number, parent, span


def add(subcommands: Subcommands) -> None:
    """Add the subcommands."""
    filters, queue = subcommands.filters, parent()
    requeue = subcommands.add("requeue", _decide, "Make kept or scheduled tasks ready again.", filters)
    requeue.add_argument("--countdown", type=span, metavar="TIME", help=f"Run them after: {SPANS}.")
    cancel = subcommands.add("cancel", _decide, "Delete waiting tasks.", filters)
    cancel.add_argument("--terminate", action="store_true", help="Also end running tasks.")
    delete = subcommands.add("delete", _decide, "Delete kept tasks.", filters)
    for parser in (requeue, cancel, delete):
        parser.add_argument("ids", type=number, nargs="*", metavar="ID")
        parser.add_argument("--status", choices=Status.values, metavar="STATUS", help="Only this status.")
        parser.add_argument("--all", action="store_true", help="All tasks, if there is no other filter.")
    purge = subcommands.add("purge", _purge, "Delete successful and cancelled tasks.")
    purge.add_argument("statuses", nargs="*", metavar="STATUS", help="These statuses instead.")
    age = f"Only if they ended this long ago: {SPANS}."
    purge.add_argument("--older-than", type=span, metavar="TIME", help=age)
    purge.add_argument("--queue", help="Only tasks of this queue.")
    purge.add_argument("--dry-run", action="store_true", help="Only print how many would be deleted.")
    queue.add_argument("queue", metavar="QUEUE")
    subcommands.add("pause", _pause, "Start no more tasks of a queue. Running tasks continue.", queue)
    subcommands.add("resume", _resume, "Resume a paused queue.", queue)
    limit = subcommands.add("limit", _limit, "Change limits of a task, and show all changes.")
    limit.add_argument("name", nargs="?", metavar="NAME", help="The task, such as shop.tasks.ship.")
    limit.add_argument("--key", help="Only for calls with this concurrency_key.")
    most = 'How many calls run at a time; "none": any number.'
    limit.add_argument("--max-concurrency", type=_number_or_none, metavar="N", help=most)
    limit.add_argument("--rate-limit", metavar="RATE", help='How often calls start, as in "10/m"; "none".')
    limit.add_argument("--reset", action="store_true", help="First undo all changes for this NAME and KEY.")


def _decide(command: BaseCommand, options: dict[str, Any]) -> None:
    if not any(options[key] for key in ("ids", "status", "queue", "task", "older_than", "all")):
        raise CommandError("Which tasks? Give ids, --status, --queue, --task or --older-than, or --all.")
    tasks = filtered(Task.objects.all(), options)
    if options["ids"]:
        tasks = tasks.filter(pk__in=options["ids"])
    if options["status"]:
        tasks = tasks.filter(status=options["status"])
    verb = options["command"]
    changed = _change(command, verb, tasks, options)
    if (missed := len(set(options["ids"])) - changed) > 0:
        possible = ", ".join(MOVES[verb].origins)
        raise CommandError(f"{missed} of these tasks are gone, or not in one of these states: {possible}.")


def _change(command: BaseCommand, verb: str, tasks: QuerySet[Task], options: dict[str, Any]) -> int:
    """Apply a verb to tasks, show progress, and return how many were changed."""
    past = {"requeue": "Requeued", "cancel": "Cancelled", "delete": "Deleted"}[verb]
    progress = console.Progress(command.stderr, past, tasks.filter(status__in=MOVES[verb].origins).count)
    if verb == "requeue":
        batches = operations.requeue_in_batches(tasks, options["countdown"])
    elif verb == "cancel":
        batches = operations.cancel_in_batches(tasks)
    else:
        batches = operations.delete_in_batches(tasks)
    changed = 0
    for count in batches:
        changed += count
        progress(changed)
    if verb == "cancel" and options["terminate"]:
        changed += operations.terminate(tasks)
    progress.clear()
    command.stdout.write(f"{past} {changed}.")
    return changed


def _purge(command: BaseCommand, options: dict[str, Any]) -> None:
    statuses, possible = options["statuses"] or ["successful", "cancelled"], MOVES["delete"].origins
    if wrong := set(statuses) - set(possible):
        raise CommandError(f"{', '.join(wrong)}: only {', '.join(possible)} can be purged.")
    tasks = Task.objects.filter(status__in=statuses)
    if options["older_than"] is not None:
        tasks = tasks.filter(finished_at__lt=timezone.now() - options["older_than"])
    if options["queue"] is not None:
        tasks = tasks.filter(queue=options["queue"])
    if options["dry_run"]:
        command.stdout.write(f"Would delete {tasks.count()}.")
    else:
        _change(command, "delete", tasks, options)


def _pause(command: BaseCommand, options: dict[str, Any]) -> None:
    name = options["queue"]
    command.stdout.write(f"{name} {'is' if operations.pause(name) else 'was already'} paused.")


def _resume(command: BaseCommand, options: dict[str, Any]) -> None:
    name = options["queue"]
    command.stdout.write(f"{name} {'is' if operations.resume(name) else 'was already'} being served.")


def _limit(command: BaseCommand, options: dict[str, Any]) -> None:
    name, key = options["name"], options["key"]
    given = [each for each in ("max_concurrency", "rate_limit") if options[each] is not None]
    new = {each: None if options[each] == "none" else options[each] for each in given}
    if name is None and (options["reset"] or new):
        raise CommandError("Name a task.")
    try:
        if options["reset"]:
            limits.reset(name, key=key)
        if new:
            limits.set(name, key=key, **new)
    except ValueError as error:
        raise CommandError(str(error)) from error
    for lane, changed in limits.changed().items():
        told = ", ".join(f"{option}={value!r}" for option, value in changed.items())
        command.stdout.write(f"{clean(lane)}: {told}")


def _number_or_none(text: str) -> int | str:
    return text if text == "none" else number(text)
