"""django-taskq: one task at a time in each of its processes, which poll once a second."""

from importlib import import_module
from typing import Any

from .base import DJANGO, FAR, WORKERS, Function
from .django_project import DjangoSystem


class DjangoTaskq(DjangoSystem):
    """One `manage.py taskq` per worker."""

    family = "django-taskq"
    requirements = (DJANGO, "django-taskq==1.0.23")
    installed = ("django_taskq",)
    table = "taskq_task"
    workers = f"{WORKERS} processes"
    worker_processes = WORKERS
    looks_every = 1.0

    def worker(self) -> list[str]:
        return ["-m", "django", "taskq", "-l", "ERROR"]

    def task(self, function: Function) -> Any:
        return import_module("django_taskq.celery").shared_task(function)

    def schedule(self, task: Any) -> None:
        task.apply_async(countdown=FAR)
