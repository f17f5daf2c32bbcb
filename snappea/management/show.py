"""Subcommands that show the queue: status, list, show and schedules."""

import sys
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from .. import schedules, stats
from ..models import Status, Task
from ..monitoring import inspect
from ..monitoring.why import why
from . import console
from .subcommands import Subcommands, filtered, number, row_of

_CLEAR = "\033[H\033[J"


def add(subcommands: Subcommands) -> None:
    """Add the subcommands."""
    as_json, filters = subcommands.as_json, subcommands.filters
    status = subcommands.add("status", _status, "Show the Foreman, queues and tasks.", as_json)
    status.add_argument("--watch", action="store_true", help="Repeat every 2 seconds until Ctrl-C.")
    listing = subcommands.add("list", _list, "List the tasks with a status.", as_json, filters)
    listing.add_argument("status", choices=Status.values, metavar="STATUS", help=", ".join(Status.values))
    listing.add_argument("--limit", type=number, default=50, metavar="N", help="At most this many (50).")
    show = subcommands.add("show", _show, "Show all details of a task.", as_json)
    show.add_argument("id", type=number, metavar="ID")
    about = "List the schedules with their next three runs, or pause, resume or fire one."
    chosen = subcommands.add("schedules", _schedules, about).add_mutually_exclusive_group()
    chosen.add_argument("--pause", metavar="NAME", help="Enqueue nothing until it is resumed.")
    chosen.add_argument("--resume", metavar="NAME", help="Continue with the next run.")
    chosen.add_argument("--fire", metavar="NAME", help="Enqueue its task now.")


def _status(command: BaseCommand, options: dict[str, Any]) -> None:
    try:
        while True:
            seen = stats.snapshot()
            text = console.as_json(seen) if options["json"] else "\n".join(console.status(seen))
            command.stdout.write(_CLEAR * (options["watch"] and sys.stdout.isatty()) + text)
            if not options["watch"]:
                return
            command.stdout.flush()
            time.sleep(2)
    except KeyboardInterrupt:
        pass


def _list(command: BaseCommand, options: dict[str, Any]) -> None:
    tasks = inspect.in_state(Task.objects.all(), Status(options["status"]))
    found = list(filtered(tasks, options).order_by("pk")[: options["limit"]])
    if options["json"]:
        command.stdout.write(console.as_json([console.as_data(task) for task in found]))
    elif found:
        command.stdout.write("\n".join(console.listed(found)))


def _show(command: BaseCommand, options: dict[str, Any]) -> None:
    task = row_of(options["id"])
    reason = why(task)
    if options["json"]:
        told = None if reason is None else reason._asdict()
        command.stdout.write(console.as_json(console.as_data(task) | {"why": told}))
    else:
        lines = [] if reason is None else ["", f"Why it waits: {console.reason(reason)}"]
        command.stdout.write("\n".join(console.one(task) + lines))


def _schedules(command: BaseCommand, options: dict[str, Any]) -> None:
    if name := options["fire"]:
        try:
            command.stdout.write(f"Enqueued {name} #{schedules.fire(name).id}.")
        except LookupError as error:
            raise CommandError(str(error)) from error
    elif name := options["pause"] or options["resume"]:
        if not (schedules.pause if options["pause"] else schedules.resume)(name):
            raise CommandError(f"There is no schedule {name!r}.")
        command.stdout.write(f"{'Paused' if options['pause'] else 'Resumed'} {name}.")
    else:
        for listed in schedules.listing():
            command.stdout.write("\n".join(console.schedule(listed)))
