"""potatoq, which has Celery's interface, on SQLite and without Django."""

from importlib import import_module
from pathlib import Path
from typing import Any

from .base import FAR, WORKERS, Function, System
from .django_project import multiply_row


class Potatoq(System):
    """One worker with a process for each task, the default; no results are kept."""

    family = "potatoq"
    requirements = ("potatoq==26.1a8",)
    workers = f"{WORKERS} processes"

    def worker(self) -> list[str]:
        command = ("-A", "tests.benchmarks.tasks:app", "worker", "-c", str(WORKERS), "-l", "ERROR")
        return ["-m", "potatoq", *command]

    def set_up(self, directory: Path) -> None:
        address = f"sqlite:///{directory / 'potatoq.sqlite3'}"
        self.app = import_module("potatoq").Potatoq("benchmarks", broker=address)
        self.app.conf.task_ignore_result = True

    def task(self, function: Function) -> Any:
        return self.app.task(function)

    def schedule(self, task: Any) -> None:
        task.apply_async(countdown=FAR)

    def multiply(self, directory: Path, times: int) -> None:
        multiply_row(directory / "potatoq.sqlite3", "potatoq_jobs", times, unique="id")
