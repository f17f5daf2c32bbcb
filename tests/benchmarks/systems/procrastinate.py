"""procrastinate as a Django app: an event loop that runs our tasks in threads; rows are kept."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from .base import DJANGO, FAR, WORKERS, Function
from .postgres import DjangoOnPostgres


class Procrastinate(DjangoOnPostgres):
    """One worker for each process."""

    family = "procrastinate"
    requirements = (DJANGO, "procrastinate[django]==3.10.0", "psycopg[binary]==3.3.9")
    installed = ("procrastinate.contrib.django",)
    table = "procrastinate_jobs"

    def worker(self) -> list[str]:
        return ["-m", "django", "procrastinate", "worker", "--concurrency", str(WORKERS)]

    def set_up(self, directory: Path) -> None:
        from django.apps import apps

        if not apps.models_ready:  # as when the app looks for tasks
            super().set_up(directory)
        self.app = import_module("procrastinate.contrib.django").app

    def task(self, function: Function) -> Any:
        return self.app.task(function)

    def enqueuer(self, task: Any) -> Function:
        return by_name(task.func, task.defer)

    def bulk_enqueuer(self, task: Any) -> Callable[[list[tuple[Any, ...]]], object]:
        name = by_name(task.func, dict)
        return lambda calls: task.batch_defer(*(name(*arguments) for arguments in calls))

    def schedule(self, task: Any) -> None:
        task.configure(schedule_in={"seconds": FAR}).defer()


def by_name(function: Function, call: Function) -> Function:
    """Return a function that takes positional arguments and passes them by name."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    return lambda *arguments: call(**dict(zip(names, arguments, strict=True)))
