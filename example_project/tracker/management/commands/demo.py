"""`manage.py demo`: sends a spike of errors with the real sentry-sdk, and shows how they are digested."""

import http.client
import os
import secrets
import socket
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils import timezone

from example_project.demo import figures, premises
from example_project.demo.children import Child, ChildDied
from example_project.demo.interrupts import Interrupted, Interrupts
from example_project.demo.progress import Progress, style_for
from example_project.demo.spike import Answer, Spike
from example_project.tracker.dsn import dsns
from example_project.tracker.models import Event
from example_project.tracker.tasks import do_nothing
from snappea.models import Status, Task

#: How long to wait for what should happen soon, in seconds.
DEADLINE = 60.0
TICK = 0.02
LOOK_EVERY = 0.1
DEFAULT_PORT = 8000
LOGIN = "demo"
#: How many tasks the queue runs without HTTP.
ALONE = 5000
#: The modules that the demo needs beside Snappea, and their packages.
NEEDED = {"gunicorn": "gunicorn", "sentry_sdk": "sentry-sdk"}


class Command(BaseCommand):
    """Start the servers, send a spike, show the result, and keep serving."""

    help = (
        "Starts gunicorn and the Foreman (the worker process), sends a spike of errors, and shows the result."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="Stop after the spike.")
        parser.add_argument("--events", type=int, default=2000, metavar="N", help="How many to send.")
        parser.add_argument("--port", type=int, help=f"Where to serve; {DEFAULT_PORT} if it is free.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["events"] < 1:
            raise CommandError("--events must be at least 1.")
        _require_packages()
        wanted = True if options["force_color"] else False if options["no_color"] else None
        self.style = style_for(self.stdout, wanted)
        self.conclusion = ""
        self.interrupts = Interrupts()
        self.servers: list[Child] = []
        try:
            with premises.occupied() as directory, ExitStack() as self.running:
                try:
                    exit_code = self._demonstrate(directory, options)
                except Interrupted:
                    exit_code = 130
                self._say("\nStopping ...")
        except (ChildDied, premises.Occupied) as error:
            raise CommandError(str(error)) from error
        except BrokenPipeError:  # the reader is gone, such as `| head`, or `| tee` after Ctrl-C
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            exit_code = 130
        self._say("Everything has stopped.")
        if options["once"] and self.conclusion:
            self._say(self.conclusion)
        if exit_code:
            sys.exit(exit_code)

    def _demonstrate(self, directory: Path, options: dict[str, Any]) -> int:
        """Run the demo. Return the exit code."""
        port = _free_port(options["port"])
        url = f"http://localhost:{port}/"
        self._say(self.style.MIGRATE_HEADING("Snappea's demo: an error tracker with background tasks"))
        self._say(f"Starting gunicorn on {url}, and the Foreman (the worker process) ...")
        _migrate()
        self.interrupts.heed()
        self._start_servers(directory, port)
        lost = self._spike(directory, port, options["events"])
        if not options["once"]:
            self._say(f"\n{self.conclusion}")
            self._say(
                f"\nOpen {url} to see the issues. Mails and logs are in {directory}. Press Ctrl-C to stop."
            )
            self._say(
                f"\nThe dashboard is at {url}admin/snappea/dashboard/: user {LOGIN}, password {_password()}"
            )
            self._serve()
        return 1 if lost else 0

    def _start_servers(self, directory: Path, port: int) -> None:
        gunicorn = ["-m", "gunicorn", "--config", "example_project/gunicorn_conf.py"]
        for name, arguments in {
            "The Foreman": ["manage.py", "runsnappea", "--no-reload"],
            "gunicorn": [*gunicorn, "--bind", f"127.0.0.1:{port}"],
        }.items():
            log = directory / f"{name.split()[-1].lower()}.log"
            server = Child(name, arguments, log)
            self.running.callback(server.stop)
            self.servers.append(server)

    def _spike(self, directory: Path, port: int, events: int) -> int:
        """Send the events, wait until they are digested, and print the result. Return how many were lost."""
        dsn = dsns(f"127.0.0.1:{port}")[0]
        spike = Spike(dsn, events, directory / "spike.log", self.running)
        self._wait_until(lambda: all(server.has_spoken() for server in self.servers))
        self._wait_until(lambda: _is_answering(port))
        self._wait_until(spike.is_ready)
        self._say(f"Sending {events:,} events from {len(spike.senders)} processes ...")
        began = timezone.now()
        spike.start()
        self._watch(spike, Progress(self.stdout, self.style, events))
        alone = self._run_queue_alone()
        lost = figures.lost_among(spike.answers, events)
        self._say(f"\n{figures.table(spike.answers, events, began, spike.seconds, alone)}")
        self._say(f"\n{figures.reason(spike.answers, spike.seconds, alone)}")
        paint = self.style.ERROR if lost else self.style.SUCCESS
        self.conclusion = paint(figures.conclusion(spike.answers, events, alone))
        return lost

    def _run_queue_alone(self) -> float:
        """Enqueue tasks that do nothing, and wait for them. Return how many a second were run."""
        began = time.monotonic()
        do_nothing.delay_many([()] * ALONE)
        self._wait_until(lambda: not _waiting())
        return ALONE / (time.monotonic() - began)

    def _watch(self, spike: Spike, progress: Progress) -> None:
        """Wait until all events are sent, digested and mailed, or there is no progress for long."""
        seen: object = None
        moved_at = next_look = time.monotonic()
        while time.monotonic() < moved_at + DEADLINE:
            self._tick()
            is_over = spike.is_over()
            if time.monotonic() < next_look:
                continue
            next_look = time.monotonic() + LOOK_EVERY
            digested, waiting = _digested(), _waiting()
            is_done = is_over and not waiting and digested >= _acknowledged(spike.answers)
            progress.show(len(spike.answers), digested, is_last=is_done)
            if is_done:
                return
            if seen != (seen := (len(spike.answers), digested, waiting)):
                moved_at = time.monotonic()
        self._say(f"No progress for {DEADLINE:.0f} seconds.")

    def _serve(self) -> None:
        try:
            while True:
                self._tick()
        except Interrupted:
            return

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        give_up = time.monotonic() + DEADLINE
        while not is_so():
            self._tick()
            if time.monotonic() > give_up:
                logs = ", ".join(str(server.log) for server in self.servers)
                raise CommandError(f"No progress for {DEADLINE:.0f} seconds. The logs are {logs}.")

    def _tick(self) -> None:
        """Sleep for a moment. Raises Interrupted, or ChildDied if a server has ended."""
        self.interrupts.pause(TICK)
        for server in self.servers:
            server.require_alive()

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _require_packages() -> None:
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise CommandError(
            f"The demo needs {' and '.join(missing)}. Run, in the clone: {sys.executable} -m pip install "
            "-e '.[example]'"
        )


def _migrate() -> None:
    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0, interactive=False)
    connections.close_all()


def _password() -> str:
    """Set a new password for the user of the admin, and return it."""
    password = secrets.token_urlsafe(9)
    user, _is_new = User.objects.get_or_create(
        username=LOGIN, defaults={"is_staff": True, "is_superuser": True}
    )
    user.set_password(password)
    user.save()
    return password


def _free_port(wanted: int | None) -> int:
    for port in [DEFAULT_PORT, 0] if wanted is None else [wanted]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError) as error:
                reason = error
            else:
                return int(probe.getsockname()[1])
    raise CommandError(f"Cannot serve on port {wanted}: {reason}.")


def _is_answering(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _acknowledged(answers: list[Answer]) -> int:
    return sum(200 <= answer.status < 300 for answer in answers)


def _digested() -> int:
    return Event.objects.exclude(issue=None).count()


def _waiting() -> int:
    return Task.objects.filter(status__in=(Status.SCHEDULED, Status.READY, Status.RUNNING)).count()
