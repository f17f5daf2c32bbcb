"""`manage.py snappea`: show the queue and manage its tasks."""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, no_translations
from django.db.models import QuerySet
from django.utils import timezone

from snappea import limits, schedules, stats
from snappea.conf import uses_celery
from snappea.errors import SnappeaError, TaskFailed
from snappea.log import clean
from snappea.management import beat, console
from snappea.models import MOVES, Status, Task
from snappea.monitoring import diagnostics, inspect
from snappea.queue import operations
from snappea.queue.availability import usable
from snappea.queue.quarantine import quarantined
from snappea.tasks import engine
from snappea.tasks.discovery import discover, load
from snappea.tasks.function import TaskFunction

_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=36_525)
_SPAN = "90, 5m, 12h, 7d"
#: The subcommands that only show rows.
_LOOKS = ("status", "list", "show", "schedules")
_CLEAR = "\033[H\033[J"


class Command(BaseCommand):
    """Each subcommand has a method, set in `add_arguments`."""

    help = "Shows the queue and manages its tasks."

    def add_arguments(self, parser: CommandParser) -> None:
        self._commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        as_json, filters = _parent(), _parent()
        as_json.add_argument("--json", action="store_true", help="Print JSON.")
        filters.add_argument("--queue", help="Only tasks of this queue.")
        filters.add_argument("--task", metavar="NAME", help="Only calls of this task.")
        age = f"Only if they were enqueued this long ago: {_SPAN}."
        filters.add_argument("--older-than", type=_span, metavar="TIME", help=age)
        self._add_looks(as_json, filters)
        self._add_calls()
        self._add_decisions(filters)
        about = "Hand over waiting tasks to Celery, each once. Repeat it to resume."
        handover = self._add("handover", self._hand_over, about, filters)
        handover.add_argument("--dry-run", action="store_true", help="Only print what would be handed over.")
        again = "Send tasks again that no worker has taken yet. Each still runs only once."
        handover.add_argument("--again", action="store_true", help=again)
        about = "Import the periodic tasks of django-celery-beat as schedules. Repeat it to import the rest."
        beats = self._add("import-beat", self._import_beat, about)
        where = 'The database with its tables ("default").'
        beats.add_argument("--database", default="default", metavar="ALIAS", help=where)
        beats.add_argument("--dry-run", action="store_true", help="Only print what would be imported.")
        about = "Check settings, database, disk and Foreman, and run a task. Exits with 0 or 1."
        check = self._add("check", self._check, about)
        check.add_argument("--timeout", type=float, default=10.0, metavar="S", help="Seconds to wait (10).")
        check.add_argument("--queue", default="default", help='The queue of the task ("default").')

    def _add_looks(self, as_json: Any, filters: Any) -> None:
        status = self._add("status", self._status, "Show the Foreman, queues and tasks.", as_json)
        status.add_argument("--watch", action="store_true", help="Repeat every 2 seconds until Ctrl-C.")
        listing = self._add("list", self._list, "List the tasks with a status.", as_json, filters)
        listing.add_argument("status", choices=Status.values, metavar="STATUS", help=", ".join(Status.values))
        listing.add_argument("--limit", type=_number, default=50, metavar="N", help="At most this many (50).")
        show = self._add("show", self._show, "Show all details of a task.", as_json)
        show.add_argument("id", type=_number, metavar="ID")
        about = "List the schedules with their next three runs, or pause, resume or fire one."
        chosen = self._add("schedules", self._schedules, about).add_mutually_exclusive_group()
        chosen.add_argument("--pause", metavar="NAME", help="Enqueue nothing until it is resumed.")
        chosen.add_argument("--resume", metavar="NAME", help="Continue with the next run.")
        chosen.add_argument("--fire", metavar="NAME", help="Enqueue its task now.")

    def _add_calls(self) -> None:
        call = _parent()
        call.add_argument("name", metavar="NAME", help="The task, such as shop.tasks.ship.")
        for option, kind, example in (("args", list, "'[42, \"x\"]'"), ("kwargs", dict, "'{\"key\": 1}'")):
            call.add_argument(
                f"--{option}", dest=f"call_{option}", type=partial(_json, kind), default=kind(),
                metavar="JSON", help=f"Such as {example}.",
            )  # fmt: skip
        enqueue = self._add("enqueue", self._enqueue, "Enqueue a call of a task.", call)
        enqueue.add_argument("--countdown", type=_span, metavar="TIME", help=f"Run it after: {_SPAN}.")
        enqueue.add_argument("--queue", help="Instead of the queue of the task.")
        enqueue.add_argument("--priority", type=int, metavar="N", help="From -100 to 100.")
        wait, a_day = "Wait for the result and print it. Without TIME: up to a day.", timedelta(days=1)
        enqueue.add_argument("--wait", type=_span, nargs="?", const=a_day, metavar="TIME", help=wait)
        self._add("run", self._run, "Run a task in this process, without the queue.", call)

    def _add_decisions(self, filters: Any) -> None:
        requeue = self._add("requeue", self._decide, "Make kept or scheduled tasks ready again.", filters)
        requeue.add_argument("--countdown", type=_span, metavar="TIME", help=f"Run them after: {_SPAN}.")
        cancel = self._add("cancel", self._decide, "Delete waiting tasks.", filters)
        cancel.add_argument("--terminate", action="store_true", help="Also end running tasks.")
        delete = self._add("delete", self._decide, "Delete kept tasks.", filters)
        for parser in (requeue, cancel, delete):
            parser.add_argument("ids", type=_number, nargs="*", metavar="ID")
            parser.add_argument("--status", choices=Status.values, metavar="STATUS", help="Only this status.")
            parser.add_argument("--all", action="store_true", help="All tasks, if there is no other filter.")
        purge = self._add("purge", self._purge, "Delete successful and cancelled tasks.")
        purge.add_argument("statuses", nargs="*", metavar="STATUS", help="These statuses instead.")
        age = f"Only if they ended this long ago: {_SPAN}."
        purge.add_argument("--older-than", type=_span, metavar="TIME", help=age)
        queue = _parent()
        queue.add_argument("queue", metavar="QUEUE")
        self._add("pause", self._pause, "Start no more tasks of a queue. Running tasks continue.", queue)
        self._add("resume", self._resume, "Resume a paused queue.", queue)
        limit = self._add("limit", self._limit, "Change limits of a task, and show all changes.")
        limit.add_argument("name", nargs="?", metavar="NAME", help="The task, such as shop.tasks.ship.")
        limit.add_argument("--key", help="Only for calls with this concurrency_key.")
        most = 'How many calls run at a time; "none": any number.'
        limit.add_argument("--max-concurrency", type=_number_or_none, metavar="N", help=most)
        limit.add_argument(
            "--rate-limit", metavar="RATE", help='How often calls start, as in "10/m"; "none".'
        )
        limit.add_argument(
            "--reset", action="store_true", help="First undo all changes for this NAME and KEY."
        )

    def _add(self, name: str, act: Callable[[dict[str, Any]], None], about: str, *parents: Any) -> Any:
        parser = self._commands.add_parser(name, help=about, description=about, parents=parents)
        parser.set_defaults(act=act)
        return parser

    def get_check_kwargs(self, options: Any) -> Any:
        """Skip database checks: `handle()` reports a queue that cannot be used."""
        return {**super().get_check_kwargs(options), "databases": []}

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        """Run a subcommand. Exits with 1 if it fails, and with 2 if it is invalid."""
        discover()
        command, act = options["command"], partial(options["act"], options)
        if command == "run":
            act()  # exceptions are the task's own
            return
        runs_elsewhere = command == "enqueue" and engine.choose() is not engine.TABLE
        try:
            with usable(looks_first=command != "check" and not runs_elsewhere):
                quarantined(act) if command in _LOOKS else act()
        except SnappeaError as error:
            raise CommandError(str(error)) from error

    def _print(self, *lines: str) -> None:
        self.stdout.write("\n".join(lines))

    # show

    def _status(self, options: dict[str, Any]) -> None:
        try:
            while True:
                seen = stats.snapshot()
                text = console.as_json(seen) if options["json"] else "\n".join(console.status(seen))
                self._print(_CLEAR * (options["watch"] and sys.stdout.isatty()) + text)
                if not options["watch"]:
                    return
                self.stdout.flush()
                time.sleep(2)
        except KeyboardInterrupt:
            pass

    def _list(self, options: dict[str, Any]) -> None:
        tasks = inspect.in_state(Task.objects.all(), Status(options["status"]))
        found = list(_filtered(tasks, options).order_by("pk")[: options["limit"]])
        if options["json"]:
            self._print(console.as_json([console.as_data(task) for task in found]))
        elif found:
            self._print(*console.listed(found))

    def _show(self, options: dict[str, Any]) -> None:
        task = Task.objects.filter(pk=options["id"]).first()
        if task is None:
            raise CommandError(
                f"There is no task {options['id']}. It succeeded, was deleted, or never existed."
            )
        self._print(*([console.as_json(console.as_data(task))] if options["json"] else console.one(task)))

    def _schedules(self, options: dict[str, Any]) -> None:
        if name := options["fire"]:
            try:
                self._print(f"Enqueued {name} #{schedules.fire(name).id}.")
            except LookupError as error:
                raise CommandError(str(error)) from error
        elif name := options["pause"] or options["resume"]:
            if not (schedules.pause if options["pause"] else schedules.resume)(name):
                raise CommandError(f"There is no schedule {name!r}.")
            self._print(f"{'Paused' if options['pause'] else 'Resumed'} {name}.")
        else:
            for listed in schedules.listing():
                self._print(*console.schedule(listed))

    def _hand_over(self, options: dict[str, Any]) -> None:
        if not uses_celery():
            raise CommandError('Celery is not the engine. Set SNAPPEA["ENGINE"] = "celery" first.')
        handover = import_module("snappea.celery.handover")  # here, because only this needs Celery
        send = import_module("snappea.celery.engine").send_handed_over
        tasks = _filtered(Task.objects.all(), options)
        if not options["dry_run"]:
            self._print(f"Handed over {handover.hand_over(tasks, send, options['again'])}.")
        ids, left = handover.choose(tasks)
        if options["dry_run"]:
            self._print(f"Would hand over {len(ids)}.")
        for why, count in sorted(left.items()):
            self._print(f"Left {count} {why}.")
        if (waiting := handover.outstanding()) and not options["dry_run"]:
            self._print(f"{waiting} handed-over tasks wait for a Celery worker.")

    def _import_beat(self, options: dict[str, Any]) -> None:
        if uses_celery():
            raise CommandError('With Celery as the engine, beat reads its own tables. Remove "ENGINE" first.')
        known, done = {listed.planned.plan.name for listed in schedules.listing(0)}, 0
        verb = "Would import" if options["dry_run"] else "Imported"
        for entry in beat.entries(options["database"]):
            name = clean(entry.name)
            if entry.name in known:
                self._print(f"Left {name}: there is a schedule of this name.")
            elif obstacle := beat.load(entry, options["dry_run"]):
                self._print(f"Left {name} ({clean(entry.task)}): {clean(obstacle.rstrip('.'))}.")
            else:
                done += 1
                lost = (f"    Not imported: {clean(each)}." for each in entry.lost())
                self._print(f"{verb} {name}{'' if entry.enabled else ', paused'}.", *lost)
        self._print(f"{verb} {done} schedules.")

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
            self._print(f"Enqueued {task.name} #{result.id}.")
        else:
            self._print(json.dumps(returned, ensure_ascii=False))

    def _run(self, options: dict[str, Any]) -> None:
        try:
            task: TaskFunction[..., Any] = load(options["name"])
            call = task.call(tuple(options["call_args"]), options["call_kwargs"])
        except (SnappeaError, TypeError) as error:
            raise CommandError(str(error)) from error
        self._print(repr(task.run_now(call)))

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
            raise CommandError(
                f"{missed} of these tasks are gone, or not in one of these states: {possible}."
            )

    def _change(self, verb: str, tasks: QuerySet[Task], options: dict[str, Any]) -> int:
        """Apply a verb to tasks, show progress, and return how many were changed."""
        past = {"requeue": "Requeued", "cancel": "Cancelled", "delete": "Deleted"}[verb]
        progress = console.Progress(self.stderr, past, tasks.filter(status__in=MOVES[verb].origins).count)
        if verb == "requeue":
            batches = operations.requeue_in_batches(tasks, options["countdown"])
        elif verb == "cancel":
            batches = operations.cancel_in_batches(tasks)
        else:
            batches = operations.delete_in_batches(tasks)
        changed = 0
        for number in batches:
            changed += number
            progress(changed)
        if verb == "cancel" and options["terminate"]:
            changed += operations.terminate(tasks)
        progress.clear()
        self._print(f"{past} {changed}.")
        return changed

    def _purge(self, options: dict[str, Any]) -> None:
        statuses, possible = options["statuses"] or ["successful", "cancelled"], MOVES["delete"].origins
        if wrong := set(statuses) - set(possible):
            raise CommandError(f"{', '.join(wrong)}: only {', '.join(possible)} can be purged.")
        tasks = Task.objects.filter(status__in=statuses)
        if options["older_than"] is not None:
            tasks = tasks.filter(finished_at__lt=timezone.now() - options["older_than"])
        self._change("delete", tasks, options)

    def _pause(self, options: dict[str, Any]) -> None:
        name = options["queue"]
        self._print(f"{name} {'is' if operations.pause(name) else 'was already'} paused.")

    def _resume(self, options: dict[str, Any]) -> None:
        name = options["queue"]
        self._print(f"{name} {'is' if operations.resume(name) else 'was already'} being served.")

    def _limit(self, options: dict[str, Any]) -> None:
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
            self._print(f"{clean(lane)}: {told}")


def _parent() -> argparse.ArgumentParser:
    """Return a parser for options that subcommands share."""
    return argparse.ArgumentParser(add_help=False)


def _filtered(tasks: QuerySet[Task], options: dict[str, Any]) -> QuerySet[Task]:
    if options["queue"] is not None:
        tasks = tasks.filter(queue=options["queue"])
    if options["task"] is not None:
        tasks = tasks.filter(task_name=options["task"])
    if options["older_than"] is not None:
        tasks = tasks.filter(enqueued_at__lt=timezone.now() - options["older_than"])
    return tasks


def _json(kind: type, text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is not JSON: {error}") from None
    if not isinstance(found, kind):
        wanted = "list" if kind is list else "object"
        raise argparse.ArgumentTypeError(f"{text!r} must be a JSON {wanted}")
    return found


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a non-negative whole number")
    return int(text)


def _number_or_none(text: str) -> int | str:
    return text if text == "none" else _number(text)


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, or like 5m, 12h or 7d")
    try:
        span = timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        span = timedelta.max
    if span > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than 100 years")
    return span
