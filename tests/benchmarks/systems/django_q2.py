"""django-q2 with its ORM broker: a process that fetches, and one for each worker."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from .base import DJANGO, WORKERS, Function
from .django_project import DjangoSystem, far


class DjangoQ2(DjangoSystem):
    """One cluster, which fetches many at once and keeps no successes."""

    family = "django-q2"
    requirements = (DJANGO, "django-q2==1.11.1")
    installed = ("django_q",)
    table = "django_q_schedule"
    workers = f"{WORKERS} processes"
    looks_every = 0.2

    def django_settings(self, directory: Path) -> dict[str, Any]:
        cluster = {"orm": "default", "workers": WORKERS, "bulk": 50, "save_limit": -1, "log_level": "ERROR"}
        return {**super().django_settings(directory), "Q_CLUSTER": {**cluster, "timeout": 60, "retry": 120}}

    def worker(self) -> list[str]:
        return ["-m", "django", "qcluster"]

    def task(self, function: Function) -> Any:
        return function

    def enqueuer(self, task: Any) -> Function:
        return partial(import_module("django_q.tasks").async_task, f"{task.__module__}.{task.__name__}")

    def schedule(self, task: Any) -> None:
        import_module("django_q.tasks").schedule(f"{task.__module__}.{task.__name__}", next_run=far())
