"""django-tasks-db: a task at a time in each of its processes, which look once a second."""

from importlib import import_module
from pathlib import Path
from typing import Any

import django

from .base import WORKERS, Function
from .django_project import DjangoSystem

#: Django has it since 6.0; before, it is a package of its own: `django-tasks-db[compat]`.
BUILT_IN = django.VERSION >= (6, 0)
TASKS = "django.tasks" if BUILT_IN else "django_tasks"


class DjangoTasksDB(DjangoSystem):
    """One `manage.py db_worker` per worker."""

    family = "django-tasks-db"
    requires = ("django_tasks_db", TASKS)
    cure = "pip install " + ("django-tasks-db" if BUILT_IN else "'django-tasks-db[compat]'")
    installed = ("django_tasks_db",) if BUILT_IN else ("django_tasks", "django_tasks_db")
    worker_processes = WORKERS
    share = 0.05
    questions_share = 0.05

    def worker(self) -> list[str]:
        return ["-m", "django", "db_worker", "-v", "0"]

    def django_settings(self, directory: Path) -> dict[str, Any]:
        backend = {"BACKEND": "django_tasks_db.DatabaseBackend"}
        return {**super().django_settings(directory), "TASKS": {"default": backend}}

    def task(self, function: Function) -> Any:
        return import_module(TASKS).task(function)

    def enqueuer(self, task: Any) -> Function:
        enqueue: Function = task.enqueue
        return enqueue
