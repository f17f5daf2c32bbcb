"""django-taskq: a task at a time in each of its processes, which look once a second."""

from importlib import import_module
from typing import Any

from .base import WORKERS, Function
from .django_project import DjangoSystem


class DjangoTaskq(DjangoSystem):
    """One `manage.py taskq` per worker."""

    family = "django-taskq"
    requires = ("django_taskq",)
    installed = ("django_taskq",)
    worker_processes = WORKERS
    share = 0.05
    questions_share = 0.05

    def worker(self) -> list[str]:
        return ["-m", "django", "taskq", "-l", "ERROR"]

    def task(self, function: Function) -> Any:
        return import_module("django_taskq.celery").shared_task(function)

    def enqueuer(self, task: Any) -> Function:
        enqueue: Function = task.delay
        return enqueue
