"""Huey on SQLite, with its own consumer and threads, without Django and without logging."""

import sqlite3
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .base import EVERYTHING, FAR, WORKERS, Function, System
from .django_project import multiply_row


class NormalConnection(sqlite3.Connection):
    """A connection with synchronous=NORMAL, for which Huey itself has no option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA synchronous = NORMAL")


class Huey(System):
    """SqliteHuey, with defaults for everything else."""

    family = "huey"
    requirements = ("huey==3.5.4",)

    def __init__(
        self, name: str, title: str, measured: frozenset[str] = EVERYTHING, full: bool = False
    ) -> None:
        super().__init__(name, title, measured)
        self.options: dict[str, Any] = {"fsync": True} if full else {"factory": NormalConnection}

    def multiply(self, directory: Path, times: int) -> None:
        multiply_row(directory / "huey.db", "schedule", times)

    def worker(self) -> list[str]:
        return ["-m", "tests.benchmarks.systems.huey"]

    def set_up(self, directory: Path) -> None:
        self.queue = import_module("huey").SqliteHuey(filename=str(directory / "huey.db"), **self.options)

    def task(self, function: Function) -> Any:
        return self.queue.task()(function)

    def enqueuer(self, task: Any) -> Function:
        enqueue: Function = task
        return enqueue

    def schedule(self, task: Any) -> None:
        # `schedule()` would only enqueue it, for a consumer to schedule
        self.queue.add_schedule(task.s(delay=FAR))

    def consume(self) -> None:
        self.queue.create_consumer(workers=WORKERS).run()


if __name__ == "__main__":
    sys.exit(import_module("tests.benchmarks.tasks").system.consume())
