"""The ports of Rails' Solid Queue to Django's own django.tasks: for Django 6 and Python 3.12 or later."""

import sqlite3
from importlib import import_module
from pathlib import Path
from typing import Any

from .base import WORKERS
from .django_project import multiply_row
from .django_tasks import OfDjango

DJANGO_6 = "django==6.0.10"


class SolidQueue(OfDjango):
    """Processes for workers and for due tasks, and one above them; they look ten times a second.

    A task is a row for the job, and one in a table for its state.
    """

    framework = "django.tasks"
    oldest_python = (3, 12)
    looks_every = 0.1
    #: The table of scheduled jobs.
    scheduled = ""

    def worker(self) -> list[str]:
        return ["-m", "django", self.installed[0], "-v", "0"]

    def multiply(self, directory: Path, times: int) -> None:
        file = directory / "default.sqlite3"
        multiply_row(file, self.table, times)
        connection = sqlite3.connect(file)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({self.scheduled})")]
        names = ", ".join(name for name in columns if name not in ("id", "job_id"))
        with connection:
            connection.execute(
                f"INSERT INTO {self.scheduled} (job_id, {names}) SELECT job, {names} "
                f"FROM {self.scheduled}, (SELECT id AS job FROM {self.table}) WHERE job <> job_id"
            )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()


class DjQueue(SolidQueue):
    """dj-queue; finished jobs are not kept."""

    family = "dj-queue"
    requirements = (DJANGO_6, "dj-queue==0.14.2")
    installed = ("dj_queue",)
    backend = "dj_queue.backend.DjQueueBackend"
    table, scheduled = "dj_queue_jobs", "dj_queue_scheduled_executions"

    def django_settings(self, directory: Path) -> dict[str, Any]:
        settings = super().django_settings(directory)
        workers = [{"queues": "*", "threads": WORKERS}]
        settings["TASKS"]["default"]["OPTIONS"] = {"workers": workers, "preserve_finished_jobs": False}
        return settings


class SteadyQueue(SolidQueue):
    """steady-queue."""

    family = "steady-queue"
    requirements = (DJANGO_6, "steady-queue==0.3.0")
    installed = ("steady_queue",)
    backend = "steady_queue.backend.SteadyQueueBackend"
    table, scheduled = "steady_queue_job", "steady_queue_scheduledexecution"

    def django_settings(self, directory: Path) -> dict[str, Any]:
        configuration = import_module("steady_queue.configuration").Configuration
        workers = [configuration.Worker(queues=["*"], threads=WORKERS)]
        settings = super().django_settings(directory)
        return {**settings, "STEADY_QUEUE": configuration.Options(workers=workers)}
