"""Subcommands that call a task: enqueue and run."""

import json
from datetime import timedelta
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ..errors import SnappeaError, TaskFailed
from ..tasks.discovery import load
from ..tasks.function import TaskFunction
from .subcommands import SPANS, Subcommands, json_of, parent, span


def add(subcommands: Subcommands) -> None:
    """Add the subcommands."""
    call = parent()
    call.add_argument("name", metavar="NAME", help="The task, such as shop.tasks.ship.")
    for option, kind, example in (("args", list, "'[42, \"x\"]'"), ("kwargs", dict, "'{\"key\": 1}'")):
        call.add_argument(
            f"--{option}", dest=f"call_{option}", type=partial(json_of, kind), default=kind(),
            metavar="JSON", help=f"Such as {example}.",
        )  # fmt: skip
    enqueue = subcommands.add("enqueue", _enqueue, "Enqueue a call of a task.", call)
    enqueue.add_argument("--countdown", type=span, metavar="TIME", help=f"Run it after: {SPANS}.")
    enqueue.add_argument("--queue", help="Instead of the queue of the task.")
    enqueue.add_argument("--priority", type=int, metavar="N", help="From -100 to 100.")
    wait, a_day = "Wait for the result and print it. Without TIME: up to a day.", timedelta(days=1)
    enqueue.add_argument("--wait", type=span, nargs="?", const=a_day, metavar="TIME", help=wait)
    subcommands.add("run", _run, "Run a task in this process, without the queue.", call)


def _enqueue(command: BaseCommand, options: dict[str, Any]) -> None:
    task, wait = load(options["name"]), options["wait"]
    try:
        result = task.apply_async(
            options["call_args"],
            options["call_kwargs"],
            countdown=options["countdown"],
            queue=options["queue"],
            priority=options["priority"],
            result_ttl=None if wait is None else max(60.0, wait.total_seconds()),
        )
        returned = None if wait is None else result.get(timeout=wait.total_seconds())
    except (TypeError, ValueError, TimeoutError, TaskFailed) as error:  # a wrong argument, or no result
        raise CommandError(str(error)) from error
    if wait is None:
        command.stdout.write(f"Enqueued {task.name} #{result.id}.")
    else:
        command.stdout.write(json.dumps(returned, ensure_ascii=False))


def _run(command: BaseCommand, options: dict[str, Any]) -> None:
    try:
        task: TaskFunction[..., Any] = load(options["name"])
        call = task.call(tuple(options["call_args"]), options["call_kwargs"])
    except (SnappeaError, TypeError) as error:
        raise CommandError(str(error)) from error
    command.stdout.write(repr(task.run_now(call)))
