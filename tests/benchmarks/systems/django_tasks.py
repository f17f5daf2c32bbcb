"""The backends of django.tasks: Snappea's, and those of its peers."""

from importlib import import_module
from pathlib import Path
from typing import Any

import django

from .base import EVERYTHING, WORKERS, Function
from .django_project import DjangoSystem
from .snappea import Snappea

#: Django has it since 6.0; before, it is a package of its own.
BUILT_IN = django.VERSION >= (6, 0)
TASKS = "django.tasks" if BUILT_IN else "django_tasks"
ADAPTER = () if BUILT_IN else ("django_tasks",)


class OfDjango(DjangoSystem):
    """Any of them."""

    backend = ""

    def django_settings(self, directory: Path) -> dict[str, Any]:
        settings = super().django_settings(directory)
        return {**settings, "TASKS": {"default": {"BACKEND": self.backend, "QUEUES": []}}}

    def task(self, function: Function) -> Any:
        return import_module(TASKS).task(function)

    def enqueuer(self, task: Any) -> Function:
        enqueue: Function = task.enqueue
        return enqueue


class SnappeaBackend(OfDjango, Snappea):
    """The Foreman, with its results kept."""

    requires = (TASKS,)
    installed = ("snappea", *ADAPTER)
    backend = "snappea.backend.SnappeaBackend"


class DjangoTasksDB(OfDjango):
    """django-tasks-db: one `manage.py db_worker` per worker, a task at a time, which look once a second."""

    family = "django-tasks-db"
    requires = ("django_tasks_db", TASKS)
    installed = ("django_tasks_db", *ADAPTER)
    backend = "django_tasks_db.DatabaseBackend"
    worker_processes = WORKERS
    share = 0.05
    questions_share = 0.05

    def worker(self) -> list[str]:
        return ["-m", "django", "db_worker", "-v", "0"]


class DjangoOx(OfDjango):
    """django-ox: one worker with threads, which looks once a second. For Python 3.12 or later."""

    family = "django-ox"
    requires = ("django_ox", TASKS)
    installed = ("django_ox", *ADAPTER)
    backend = "django_ox.backend.OxBackend"
    share = 0.05
    questions_share = 0.05

    def worker(self) -> list[str]:
        return ["-m", "django", "ox_worker", "--concurrency", str(WORKERS), "-v", "0"]


class HueyBackend(OfDjango):
    """Huey on SQLite behind django.tasks; its database is Huey's own."""

    family = "huey"
    requires = ("huey.contrib.djhuey.tasks_backend", TASKS)
    installed = ("huey.contrib.djhuey", *ADAPTER)
    backend = "huey.contrib.djhuey.tasks_backend.HueyBackend"
    share = 0.25

    def __init__(self, name: str, title: str, measured: frozenset[str] = EVERYTHING) -> None:
        super().__init__(name, title, measured)

    def missing(self) -> list[str]:
        try:  # to look for a module in it would import it, which needs settings
            version = import_module("huey").__version__
        except ImportError:
            return ["huey"]
        return [] if tuple(map(int, version.split(".")[:2])) >= (3, 1) else ["huey>=3.1"]

    def worker(self) -> list[str]:
        return ["-m", "django", "run_huey", "-w", str(WORKERS), "-q"]

    def django_settings(self, directory: Path) -> dict[str, Any]:
        from .huey import NormalConnection

        queue = import_module("huey").SqliteHuey(
            filename=str(directory / "huey.db"), factory=NormalConnection
        )
        return {**super().django_settings(directory), "HUEY": queue}
