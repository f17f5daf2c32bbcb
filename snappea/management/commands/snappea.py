"""`manage.py snappea`: look at the queue, and steer it, from the command line."""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet
from django.utils import timezone

from snappea import schedules, stats
from snappea.celery import handover
from snappea.conf import current, uses_celery
from snappea.errors import SnappeaError, TaskFailed
from snappea.management import console
from snappea.models import MOVES, Status, Task
from snappea.monitoring import diagnostics, inspect
from snappea.queue import store
from snappea.queue.availability import UNUSABLE, explain, trouble
from snappea.queue.quarantine import quarantined
from snappea.tasks.registry import TaskFunction, discover, load
from snappea.tasks.results import AsyncResult

_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=36_525)
#: The subcommands that show rows.
_LOOKS = ("status", "list", "show", "schedules")
#: Those that say themselves what is wrong with the queue, or do not need it.
_WITHOUT_QUEUE = ("check", "run")
_CLEAR = "\033[H\033[J"


class Command(BaseCommand):
    """A subcommand for each thing that can be looked at or done; `add_arguments` names them all."""

    help = "Looks at the queue, and steers it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the subcommands and their options."""
        self._commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        status = self._add("status", self._status, "How things stand: the Foreman, queues, what runs.")
        status.add_argument("--json", action="store_true", help="As JSON.")
        status.add_argument("--watch", action="store_true", help="Again each 2 seconds, until Ctrl-C.")
        listing = self._add("list", self._list, "List tasks of a status.")
        listing.add_argument("status", choices=Status.values, metavar="STATUS", help=", ".join(Status.values))
        _add_filters(listing)
        listing.add_argument("--limit", type=_number, default=50, metavar="N", help="At most so many (50).")
        listing.add_argument("--json", action="store_true", help="As JSON.")
        show = self._add("show", self._show, "Show all that is known of a task.")
        show.add_argument("id", type=_number, metavar="ID")
        show.add_argument("--json", action="store_true", help="As JSON.")
        self._add_calls()
        self._add_decisions()
        about = "List the periodic tasks and their next three times; pause one, resume it, or fire it now."
        for_schedules = self._add("schedules", self._schedules, about)
        chosen = for_schedules.add_mutually_exclusive_group()
        chosen.add_argument("--pause", metavar="NAME", help="Let it enqueue nothing until it is resumed.")
        chosen.add_argument("--resume", metavar="NAME", help="Let it go on with its next time.")
        chosen.add_argument("--fire", metavar="NAME", help="Enqueue what it enqueues, now.")
        about = "Hand over to Celery what waits here, each task once. Go on with it by calling it again."
        handover = self._add("handover", self._hand_over, about)
        _add_filters(handover)
        handover.add_argument("--dry-run", action="store_true", help="Only say what would be handed over.")
        handover.add_argument(
            "--again",
            action="store_true",
            help="Also send once more what no worker has taken yet; it runs once all the same.",
        )
        about = "Examine settings, database, disk and Foreman, and have a task run. Exits with 0 or 1."
        check = self._add("check", self._check, about)
        check.add_argument("--timeout", type=float, default=10.0, metavar="S", help="Wait so long (10 s).")
        check.add_argument("--queue", default="default", help='The queue to send a task to ("default").')

    def _add_calls(self) -> None:
        enqueue = self._add("enqueue", self._enqueue, "Enqueue a call of a task.")
        _add_call(enqueue)
        enqueue.add_argument("--countdown", type=_span, metavar="TIME", help="Not before: 90, 5m, 12h, 7d.")
        enqueue.add_argument("--queue", help="Instead of the task's own.")
        enqueue.add_argument("--priority", type=int, metavar="N", help="From -100 to 100.")
        enqueue.add_argument(
            "--wait",
            type=_span,
            nargs="?",
            const=timedelta(days=1),
            metavar="TIME",
            help="Wait for its result.",
        )
        _add_call(self._add("run", self._run, "Run a task here and now, without the queue."))

    def _add_decisions(self) -> None:
        requeue = self._add("requeue", self._decide, "Make kept or scheduled tasks ready again.")
        requeue.add_argument("--countdown", type=_span, metavar="TIME", help="Not at once: 90, 5m, 12h, 7d.")
        cancel = self._add("cancel", self._decide, "Delete tasks that wait.")
        cancel.add_argument("--terminate", action="store_true", help="End those that run as well.")
        delete = self._add("delete", self._decide, "Delete tasks that have ended and are kept.")
        for parser in (requeue, cancel, delete):
            parser.add_argument("ids", type=_number, nargs="*", metavar="ID")
            parser.add_argument("--status", choices=Status.values, metavar="STATUS", help="Only those.")
            _add_filters(parser)
            parser.add_argument("--all", action="store_true", help="All of them, if nothing else is given.")
        purge = self._add("purge", self._purge, "Delete what has ended: successful and cancelled tasks.")
        purge.add_argument(
            "statuses", nargs="*", metavar="STATUS", help="These instead, as in: failed interrupted."
        )
        purge.add_argument(
            "--older-than", type=_span, metavar="TIME", help="That ended so long ago: 12h, 30d."
        )
        for verb, about in (
            ("pause", "Let nothing be claimed from a queue. What runs goes on."),
            ("resume", "Let a paused queue be served again."),
        ):
            self._add(verb, self._pause_or_resume, about).add_argument("queue", metavar="QUEUE")

    def _add(self, name: str, act: Callable[[dict[str, Any]], None], about: str) -> Any:
        parser = self._commands.add_parser(name, help=about, description=about)
        parser.set_defaults(act=act)
        return parser

    def get_check_kwargs(self, options: Any) -> Any:
        """Leave it to `handle()` to say that the queue cannot be used."""
        return {**super().get_check_kwargs(options), "databases": []}

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what was asked for. Exits with 1 if it cannot be done, with 2 if it makes no sense."""
        discover()
        command = options["command"]
        if _needs_queue(command) and (found := trouble()):
            raise CommandError(str(found))
        try:
            act = partial(options["act"], options)
            quarantined(act) if command in _LOOKS else act()
        except (SnappeaError, *UNUSABLE) as error:
            if command == "run":
                raise  # it is the task's own
            is_said = isinstance(error, SnappeaError)
            raise CommandError(str(error if is_said else explain(error))) from error

    def _say(self, lines: list[str] | str) -> None:
        self.stdout.write(lines if isinstance(lines, str) else "\n".join(lines))

    # look

    def _status(self, options: dict[str, Any]) -> None:
        try:
            while True:
                stands = stats.snapshot()
                text = console.as_json(stands) if options["json"] else "\n".join(console.status(stands))
                self._say(_CLEAR * (options["watch"] and sys.stdout.isatty()) + text)
                if not options["watch"]:
                    return
                self.stdout.flush()
                time.sleep(2)
        except KeyboardInterrupt:
            pass

    def _list(self, options: dict[str, Any]) -> None:
        state = options["status"]
        if state == Status.RUNNING:
            tasks = Task.objects.filter(status=state, pk__in=inspect.ids_in_flight())
        else:
            tasks = Task.objects.extra(where=[inspect.IN_STATE[Status(state)]])
        found = list(_filtered(tasks, options).order_by("pk")[: options["limit"]])
        if options["json"]:
            self._say(console.as_json([console.as_data(task) for task in found]))
        elif found:
            self._say(console.listed(found))

    def _show(self, options: dict[str, Any]) -> None:
        task = Task.objects.filter(pk=options["id"]).first()
        if task is None:
            raise CommandError(f"There is no task {options['id']}: it succeeded, was deleted, or never was.")
        self._say(console.as_json(console.as_data(task)) if options["json"] else console.one(task))

    def _schedules(self, options: dict[str, Any]) -> None:
        if name := options["fire"]:
            try:
                self._say(f"Enqueued {name} #{schedules.fire(name).id}.")
            except LookupError as error:
                raise CommandError(str(error)) from error
        elif name := options["pause"] or options["resume"]:
            if not (schedules.pause if options["pause"] else schedules.resume)(name):
                raise CommandError(f"There is no schedule {name!r}.")
            self._say(f"{'Paused' if options['pause'] else 'Resumed'} {name}.")
        else:
            for plan, row, runs in schedules.listing():
                self._say(console.schedule(plan, row, runs))

    def _hand_over(self, options: dict[str, Any]) -> None:
        if not uses_celery():
            raise CommandError('Celery is not in charge. Set SNAPPEA["ENGINE"] = "celery" first.')
        tasks = _filtered(Task.objects.all(), options)
        if options["dry_run"]:
            ids, left = handover.choose(tasks)
            self._say(f"Would hand over {len(ids)}.")
        else:
            from snappea.celery.engine import send_handed_over  # which needs Celery

            report = handover.hand_over(tasks, send_handed_over, options["again"])
            left = report.left
            self._say(f"Handed over {report.handed}.")
        for why, count in sorted(left.items()):
            self._say(f"Left {count} {why}.")
        if (waiting := handover.outstanding()) and not options["dry_run"]:
            self._say(f"{waiting} that were handed over wait for a worker of Celery's to take them.")

    def _check(self, options: dict[str, Any]) -> None:
        is_well = True
        for finding in diagnostics.examine(options["queue"], options["timeout"]):
            is_well = is_well and finding.is_well
            (self.stdout if finding.is_well else self.stderr).write(str(finding))
        if not is_well:
            raise CommandError("Something is wrong.")

    # call

    def _enqueue(self, options: dict[str, Any]) -> None:
        task, wait = load(options["name"]), options["wait"]
        try:
            result = task.apply_async(
                *_arguments(options),
                countdown=options["countdown"],
                queue=options["queue"],
                priority=options["priority"],
                result_ttl=None if wait is None else max(60.0, wait.total_seconds()),
            )
        except (TypeError, ValueError) as error:  # its arguments, the queue or the priority
            raise CommandError(str(error)) from error
        if wait is None:
            self._say(f"Enqueued {task.name} #{result.id}.")
        else:
            self._say(json.dumps(_waited_for(result, wait), ensure_ascii=False))

    def _run(self, options: dict[str, Any]) -> None:
        args, kwargs = _arguments(options)
        try:
            task: TaskFunction[..., Any] = load(options["name"])
            call = task.call(tuple(args), kwargs)
        except (SnappeaError, TypeError) as error:
            raise CommandError(str(error)) from error
        self._say(repr(task.run_now(call)))

    # decide

    def _decide(self, options: dict[str, Any]) -> None:
        if not any(options[key] for key in ("ids", "status", "queue", "task", "older_than", "all")):
            raise CommandError("Which tasks? Give ids, --status, --queue, --task or --older-than, or --all.")
        tasks = _filtered(Task.objects.all(), options)
        if options["ids"]:
            tasks = tasks.filter(pk__in=options["ids"])
        if options["status"]:
            tasks = tasks.filter(status=options["status"])
        verb = options["command"]
        changed = self._change(verb, tasks, options)
        if (missed := len(set(options["ids"])) - changed) > 0:
            possible = ", ".join(MOVES[verb].origins)
            raise CommandError(f"{missed} of these are gone, or in a state for it no more ({possible}).")

    def _change(self, verb: str, tasks: QuerySet[Task], options: dict[str, Any]) -> int:
        """Apply a verb to tasks, show how far it is, and say and return how many were changed."""
        done = {"requeue": "Requeued", "cancel": "Cancelled", "delete": "Deleted"}[verb]
        left = tasks.filter(status__in=MOVES[verb].origins).count
        tell = console.Progress(self.stderr, done, left)
        if verb == "requeue":
            changed = store.requeue(tasks, options["countdown"], tell)
        elif verb == "cancel":
            changed = store.cancel(tasks, tell) + (store.terminate(tasks) if options["terminate"] else 0)
        else:
            changed = store.delete(tasks, tell)
        tell.clear()
        self._say(f"{done} {changed}.")
        return changed

    def _purge(self, options: dict[str, Any]) -> None:
        statuses = options["statuses"] or [Status.SUCCESSFUL.value, Status.CANCELLED.value]
        if wrong := set(statuses) - set(MOVES["delete"].origins):
            raise CommandError(
                f"{', '.join(wrong)}: only {', '.join(MOVES['delete'].origins)} can be purged."
            )
        tasks = Task.objects.filter(status__in=statuses)
        if options["older_than"] is not None:
            tasks = tasks.filter(finished_at__lt=timezone.now() - options["older_than"])
        self._change("delete", tasks, options)

    def _pause_or_resume(self, options: dict[str, Any]) -> None:
        name, pauses = options["queue"], options["command"] == "pause"
        changed = store.pause(name) if pauses else store.resume(name)
        self._say(f"{name} {'is' if changed else 'was already'} {'paused' if pauses else 'being served'}.")


def _needs_queue(command: str) -> bool:
    runs_elsewhere = command == "enqueue" and (uses_celery() or current().TASK_ALWAYS_EAGER)
    return command not in _WITHOUT_QUEUE and not runs_elsewhere


def _add_call(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="Of the task, as in shop.tasks.ship.")
    parser.add_argument(
        "--args", dest="call_args", type=_json(list), default=[], metavar="JSON", help="As in '[42, \"x\"]'."
    )
    parser.add_argument(
        "--kwargs",
        dest="call_kwargs",
        type=_json(dict),
        default={},
        metavar="JSON",
        help="As in '{\"key\": 1}'.",
    )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queue", help="Only of this queue.")
    parser.add_argument("--task", metavar="NAME", help="Only of this task.")
    parser.add_argument(
        "--older-than", type=_span, metavar="TIME", help="Enqueued so long ago: 90, 5m, 12h, 7d."
    )


def _filtered(tasks: QuerySet[Task], options: dict[str, Any]) -> QuerySet[Task]:
    if options["queue"] is not None:
        tasks = tasks.filter(queue=options["queue"])
    if options["task"] is not None:
        tasks = tasks.filter(task_name=options["task"])
    if options["older_than"] is not None:
        tasks = tasks.filter(enqueued_at__lt=timezone.now() - options["older_than"])
    return tasks


def _arguments(options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    return options["call_args"], options["call_kwargs"]


def _waited_for(result: AsyncResult, wait: timedelta) -> object:
    try:
        return result.get(timeout=wait.total_seconds())
    except (TimeoutError, TaskFailed) as error:
        raise CommandError(str(error)) from error


def _json(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise argparse.ArgumentTypeError(f"{text[:100]!r} is not JSON: {error}") from None
        if not isinstance(found, kind):
            raise argparse.ArgumentTypeError(
                f"{text!r} must be a JSON {'list' if kind is list else 'object'}"
            )
        return found

    return read


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, not below 0")
    return int(text)


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, or as in 5m, 12h or 7d")
    try:
        span = timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        span = timedelta.max
    if span > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than a hundred years")
    return span
