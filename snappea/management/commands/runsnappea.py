"""`manage.py runsnappea`: run the Foreman, the process that executes tasks."""

import argparse
import gc
import logging
import os
import sys
import threading
from contextlib import closing
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from snappea.checks import check_installation
from snappea.conf import current, declared_queues, uses_celery
from snappea.errors import CannotStart, ConfigurationError, QueueUnavailable
from snappea.log import JsonFormatter
from snappea.queue.availability import usable
from snappea.queue.files import IS_UNIX, NEEDS_UNIX
from snappea.tasks.context import all_handlers, name_tasks_in_log
from snappea.tasks.discovery import discover
from snappea.tasks.function import registry

if IS_UNIX:  # these import modules that exist on Unix only; handle() reports that
    from snappea.foreman import reports
    from snappea.foreman.autoreload import watch
    from snappea.foreman.loop import Foreman
    from snappea.foreman.restart import restart_process
    from snappea.workers.processes.fork_server import CONTROL, ForkServer, serve_if_asked


class Command(BaseCommand):
    """Run the Foreman until a signal stops it."""

    # the Foreman that executed this fork server has checked already
    requires_system_checks = () if IS_UNIX and CONTROL in os.environ else "__all__"
    help = "Runs the Foreman, the process that executes tasks."

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--workers", type=_at_least_one, metavar="N", help="How many tasks run at once (NUM_WORKERS).")
        add("--queues", default="", help="Serve only these queues, separated by commas. Default: all.")
        add("--exclude-queues", default="", metavar="QUEUES", help="Serve all queues but these.")
        add("--strict", action="store_true", help="Serve --queues strictly in this order.")
        add("--burst", action="store_true", help="Exit once no task is ready or running.")
        restart = "Restart under the same pid after this many tasks (MAX_TASKS)."
        add("--max-tasks", type=_at_least_one, metavar="N", help=restart)
        form = "With json, each log line on stderr or stdout is a JSON object. Default: as LOGGING says."
        add("--log-format", choices=("text", "json"), default="text", help=form)
        wait = "Wait while another Foreman is at work, instead of exiting with 1."
        add("--wait", action="store_true", help=wait)
        reload = "Restart when the code changes. Default: settings.DEBUG."
        add("--reload", action=argparse.BooleanOptionalAction, help=reload)

    def get_check_kwargs(self, options: Any) -> Any:
        """Skip database checks: `handle()` reports a queue that cannot be used."""
        return {**super().get_check_kwargs(options), "databases": []}

    def handle(self, *args: Any, **options: Any) -> None:
        """Run. Exits with 0 after an orderly stop, and with 1 if the Foreman cannot start or had to stop."""
        _require_work_for_a_foreman()
        for found in check_installation():  # even with --skip-checks: an installation may mix two projects
            if not found.is_silenced():
                raise CommandError(f"{found.msg} {found.hint}")
        _log_to_stderr(options["verbosity"])
        discover()
        name_tasks_in_log()  # after discover(), because a tasks module may add handlers
        if options["log_format"] == "json":
            _log_as_json()
            reports.prints_start = False
        serve_if_asked()
        reports.report_failed_imports()
        flags = {"NUM_WORKERS": options["workers"], "MAX_TASKS": options["max_tasks"]}
        instead = {key: value for key, value in flags.items() if value is not None}
        queues = _chosen_queues(options["queues"], options["exclude_queues"])
        try:
            # the fork server comes first: a process with connections or threads must not fork
            is_needed = any(task.is_isolated for task in registry.values())
            with closing(ForkServer(is_needed)) as fork_server, usable():
                foreman = Foreman(queues, options["strict"], fork_server, options["burst"], **instead)
                if settings.DEBUG if options["reload"] is None else options["reload"]:
                    watch(foreman.restart)
                gc.freeze()  # or a full collection, also that at the exit, would go through all loaded code
                exit_code = foreman.run(options["wait"])
        except (CannotStart, ConfigurationError) as error:
            raise CommandError(str(error)) from error
        except QueueUnavailable as error:
            raise CommandError(f"The Foreman cannot start. {error}") from error
        is_busy = bool(foreman.in_flight.claims)
        if foreman.shutdown.is_to_restart:
            try:
                restart_process(at_once=is_busy)
            except OSError as error:
                print(f"The Foreman cannot restart: {error}.", file=sys.stderr)
                exit_code = 1
        _exit(exit_code, at_once=is_busy)


def _require_work_for_a_foreman() -> None:
    if not IS_UNIX:
        raise CommandError(NEEDS_UNIX)
    if current().TASK_ALWAYS_EAGER:
        raise CommandError(
            'SNAPPEA["TASK_ALWAYS_EAGER"] is True: tasks run immediately where they are enqueued, '
            "so a Foreman has nothing to do. Remove it to run tasks in the background."
        )
    if uses_celery():
        raise CommandError(
            'SNAPPEA["ENGINE"] is "celery": Celery workers run the tasks. Start one: celery -A proj worker. '
            "To hand over tasks that wait in the queue's database: python manage.py snappea handover."
        )


def _chosen_queues(included: str, excluded: str) -> list[str]:
    """Return the only queues to serve; none if all are."""
    names, others = (
        [part.strip() for part in text.split(",") if part.strip()] for text in (included, excluded)
    )
    if not others:
        return names
    names = names or declared_queues() or []
    if unknown := [name for name in others if name not in names]:
        raise CommandError(
            f'--exclude-queues: {unknown[0]!r} is neither in SNAPPEA["QUEUES"] nor in --queues.'
        )
    if not (left := [name for name in names if name not in others]):
        raise CommandError("--exclude-queues leaves no queue to serve.")
    return left


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _log_to_stderr(verbosity: int) -> None:
    """Log to stderr if the project's LOGGING has no handler, and set a level if it sets none."""
    package, foreman = logging.getLogger("snappea"), logging.getLogger("snappea.foreman")
    package.disabled = foreman.disabled = False  # LOGGING disables existing loggers by default
    is_shown = foreman.hasHandlers()
    if not is_shown:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        package.addHandler(handler)
    if not is_shown or package.level == foreman.level == logging.NOTSET:
        package.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    reports.prints_start = verbosity > 0


def _log_as_json() -> None:
    """Let all handlers that write to a stream, such as stderr, write JSON. Those that write files do not."""
    for handler in all_handlers():
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setFormatter(JsonFormatter())


def _exit(exit_code: int, at_once: bool) -> None:
    """End the process: immediately if tasks still run, otherwise within seconds, even if a thread hangs."""
    if at_once:
        logging.shutdown()
        os._exit(exit_code)
    guard = threading.Timer(5.0, os._exit, [exit_code])
    guard.daemon = True
    guard.start()
    sys.exit(exit_code)
