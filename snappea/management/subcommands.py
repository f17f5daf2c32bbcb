"""The subcommands of `manage.py snappea`: how one is added, and the options that several share."""

import argparse
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet
from django.utils import timezone

from ..models import Task

_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=36_525)
#: Examples of `span`.
SPANS = "90, 5m, 12h, 7d"

#: What a subcommand does. It gets the command, for its output, and the options. Raises CommandError.
Act = Callable[[BaseCommand, dict[str, Any]], None]


class Subcommands:
    """Adds subcommands to a parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        #: Parents of subcommands.
        self.as_json, self.filters = parent(), parent()
        self.as_json.add_argument("--json", action="store_true", help="Print JSON.")
        self.filters.add_argument("--queue", help="Only tasks of this queue.")
        self.filters.add_argument("--task", metavar="NAME", help="Only calls of this task.")
        age = f"Only if they were enqueued this long ago: {SPANS}."
        self.filters.add_argument("--older-than", type=span, metavar="TIME", help=age)

    def add(self, name: str, act: Act, about: str, *parents: Any) -> argparse.ArgumentParser:
        """Add a subcommand, and return its parser. `about`: its help. `parents`: parsers of more options."""
        parser = self._commands.add_parser(name, help=about, description=about, parents=parents)
        parser.set_defaults(act=act)
        return parser


def parent() -> argparse.ArgumentParser:
    """Return a parser for options that subcommands share."""
    return argparse.ArgumentParser(add_help=False)


def row_of(task_id: int) -> Task:
    """Return the row of a task. Raises CommandError."""
    if (row := Task.objects.filter(pk=task_id).first()) is None:
        raise CommandError(f"There is no task {task_id}. It succeeded, was deleted, or never existed.")
    return row


def filtered(tasks: QuerySet[Task], options: dict[str, Any]) -> QuerySet[Task]:
    """Return the tasks that the options of `filters` choose."""
    if options["queue"] is not None:
        tasks = tasks.filter(queue=options["queue"])
    if options["task"] is not None:
        tasks = tasks.filter(task_name=options["task"])
    if options["older_than"] is not None:
        tasks = tasks.filter(enqueued_at__lt=timezone.now() - options["older_than"])
    return tasks


def json_of(kind: type, text: str) -> Any:
    """Parse JSON that must be of a kind: for `partial(json_of, list)` as the type of an argument."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is not JSON: {error}") from None
    if not isinstance(found, kind):
        wanted = "list" if kind is list else "object"
        raise argparse.ArgumentTypeError(f"{text!r} must be a JSON {wanted}")
    return found


def number(text: str) -> int:
    """Parse a non-negative whole number."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a non-negative whole number")
    return int(text)


def span(text: str) -> timedelta:
    """Parse a length of time, such as 90 (seconds), 5m, 12h or 7d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, or like 5m, 12h or 7d")
    try:
        given = timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        given = timedelta.max
    if given > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than 100 years")
    return given
