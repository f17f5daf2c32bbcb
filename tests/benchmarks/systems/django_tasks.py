"""The backends of django.tasks: Snappea's, and those of its peers."""

from importlib import import_module
from pathlib import Path
from typing import Any

from .base import DJANGO, WORKERS, Function
from .django_project import DjangoSystem, far
from .snappea import Snappea

#: django.tasks as a separate package, for Django before 6.0.
DJANGO_TASKS = "django-tasks==0.12.0"


class OfDjango(DjangoSystem):
    """A backend of django.tasks; the results are kept."""

    backend = ""
    #: The module of the interface: Django has it since 6.0.
    framework = "django_tasks"

    def django_settings(self, directory: Path) -> dict[str, Any]:
        settings = super().django_settings(directory)
        return {**settings, "TASKS": {"default": {"BACKEND": self.backend, "QUEUES": []}}}

    def task(self, function: Function) -> Any:
        return import_module(self.framework).task(function)

    def enqueuer(self, task: Any) -> Function:
        enqueue: Function = task.enqueue
        return enqueue

    def schedule(self, task: Any) -> None:
        task.using(run_after=far()).enqueue()


class SnappeaBackend(OfDjango, Snappea):
    """The Foreman, with its results kept."""

    requirements = (*Snappea.requirements, DJANGO_TASKS)
    installed = ("snappea", "django_tasks")
    backend = "snappea.backend.SnappeaBackend"


class DjangoTasksDB(OfDjango):
    """django-tasks-db: one `manage.py db_worker` per worker, one task at a time; they poll once a second."""

    family = "django-tasks-db"
    requirements = (DJANGO, DJANGO_TASKS, "django-tasks-db==0.13.0")
    installed = ("django_tasks_db", "django_tasks")
    backend = "django_tasks_db.DatabaseBackend"
    table = "django_tasks_database_dbtaskresult"
    workers = f"{WORKERS} processes"
    worker_processes = WORKERS
    looks_every = 1.0

    def worker(self) -> list[str]:
        return ["-m", "django", "db_worker", "-v", "0"]


class DjangoOx(OfDjango):
    """django-ox: one worker with threads, which polls once a second. For Python 3.12 or later."""

    family = "django-ox"
    requirements = (DJANGO, DJANGO_TASKS, "django-ox==1.9.1")
    oldest_python = (3, 12)
    looks_every = 1.0
    installed = ("django_ox", "django_tasks")
    backend = "django_ox.backend.OxBackend"
    table = "django_ox_oxtask"

    def worker(self) -> list[str]:
        return ["-m", "django", "ox_worker", "--concurrency", str(WORKERS), "-v", "0"]
