"""`manage.py runsnappea`: the Foreman, beside gunicorn."""

import argparse
import logging
import os
import sys
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from snappea.checks import check_installation
from snappea.conf import current, uses_celery
from snappea.errors import CannotStart, ConfigurationError
from snappea.queue.availability import UNUSABLE, explain, trouble
from snappea.queue.files import IS_UNIX, NEEDS_UNIX
from snappea.tasks.context import name_tasks_in_log
from snappea.tasks.registry import discover

if IS_UNIX:  # elsewhere there is not what these import; handle() says so
    from snappea.foreman import reports
    from snappea.foreman.autoreload import is_rehearsal, require_no_new_failure, watch
    from snappea.foreman.loop import Foreman
    from snappea.foreman.reports import report_failed_imports
    from snappea.foreman.restart import start_anew
    from snappea.workers.processes.fork_server import ForkServer


class Command(BaseCommand):
    """Run the Foreman until a signal says stop."""

    help = "Runs the Foreman: the one process that runs what delay() enqueued."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add which queues to serve, how much of all, until when, and whether to watch the code."""
        parser.add_argument(
            "--workers", type=_at_least_one, metavar="N", help="How many tasks run at once (NUM_WORKERS)."
        )
        parser.add_argument(
            "--queues", default="", help="The only queues to serve, separated by commas. All if not given."
        )
        parser.add_argument(
            "--strict",
            action="store_true",
            help="Nothing from one of the --queues while a task waits in one that is named before it.",
        )
        parser.add_argument(
            "--burst", action="store_true", help="Exit once nothing is ready or running any more."
        )
        parser.add_argument(
            "--max-tasks",
            type=_at_least_one,
            metavar="N",
            help="Start anew, under the same pid, after so many tasks (MAX_TASKS).",
        )
        parser.add_argument(
            "--reload",
            action=argparse.BooleanOptionalAction,
            help="Start anew when the code changes. The default is settings.DEBUG.",
        )

    def get_check_kwargs(self, options: Any) -> Any:
        """Leave it to `handle()` to say that the queue cannot be used."""
        return {**super().get_check_kwargs(options), "databases": []}

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit with 0 after an orderly stop, with 1 if it cannot start or had to stop by itself."""
        _require_work_for_a_foreman()
        for found in check_installation():  # also with --skip-checks: the files may be of two projects
            if not found.is_silenced():
                raise CommandError(f"{found.msg} {found.hint}")
        _log_to_stderr(options["verbosity"])
        discover()
        name_tasks_in_log()  # also by the handlers that a module of tasks has added
        report_failed_imports()
        flags = {"NUM_WORKERS": options["workers"], "MAX_TASKS": options["max_tasks"]}
        instead = {key: value for key, value in flags.items() if value is not None}
        queues = [name.strip() for name in options["queues"].split(",") if name.strip()]
        try:
            require_no_new_failure()
            with (
                ForkServer() as fork_server
            ):  # first of all: a process with connections or threads must not fork
                _require_usable()
                foreman = Foreman(queues, options["strict"], fork_server, options["burst"], **instead)
                if is_rehearsal():
                    return
                if settings.DEBUG if options["reload"] is None else options["reload"]:
                    watch(foreman.restart)
                exit_code = foreman.run()
        except (CannotStart, ConfigurationError) as error:
            raise CommandError(str(error)) from error
        except UNUSABLE as error:
            raise CommandError(f"The Foreman cannot start. {explain(error)}") from error
        if foreman.shutdown.is_to_start_anew:
            _start_anew(at_once=bool(foreman.in_flight.claims))
        _exit(exit_code, at_once=bool(foreman.in_flight.claims))


def _require_work_for_a_foreman() -> None:
    if not IS_UNIX:
        raise CommandError(NEEDS_UNIX)
    if current().TASK_ALWAYS_EAGER:
        raise CommandError(
            'SNAPPEA["TASK_ALWAYS_EAGER"] is True: tasks run at once where they are enqueued, '
            "and there is nothing for a Foreman to do. Remove it to run tasks in the background."
        )
    if uses_celery():
        raise CommandError(
            'SNAPPEA["ENGINE"] is "celery": Celery is in charge, and its workers run the tasks. '
            "Start one: celery -A proj worker. What still waits in the queue's database goes to them by: "
            "python manage.py snappea handover."
        )


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _require_usable() -> None:
    if found := trouble():
        raise CannotStart(f"The Foreman cannot start. {found}")


def _log_to_stderr(verbosity: int) -> None:
    """Show the log on the console if the project's LOGGING sends it nowhere; set a level it leaves open."""
    loggers = logging.getLogger("snappea"), logging.getLogger("snappea.foreman")
    for logger in loggers:
        logger.disabled = False  # as LOGGING has it by default, for all that was there before
    is_shown = loggers[1].hasHandlers()
    if not is_shown:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        loggers[0].addHandler(handler)
    if not is_shown or all(logger.level == logging.NOTSET for logger in loggers):
        loggers[0].setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    reports.prints_start = verbosity > 0


def _start_anew(at_once: bool) -> None:
    try:
        start_anew(at_once)
    except OSError as error:
        print(f"The Foreman cannot start anew: {error}.", file=sys.stderr)
        _exit(1, at_once)


def _exit(exit_code: int, at_once: bool) -> None:
    """End the process: at once if tasks still run, and soon even if a thread of theirs hangs."""
    if at_once:
        logging.shutdown()
        os._exit(exit_code)
    guard = threading.Timer(5.0, os._exit, [exit_code])
    guard.daemon = True
    guard.start()
    sys.exit(exit_code)
