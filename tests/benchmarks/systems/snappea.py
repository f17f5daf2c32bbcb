"""Snappea, from this checkout."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .base import DJANGO, EVERYTHING, FAR, WORKERS, Function
from .django_project import DjangoSystem, multiply_row

CROWD = """
    INSERT INTO snappea_task (task_name, args, enqueued_at)
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)
    SELECT 'tests.benchmarks.tasks.nothing', '[' || (i % 1000) || ']', '2026-01-01 00:00:00.000001' FROM n"""


class Snappea(DjangoSystem):
    """The Foreman with its threads, on a SQLite database of its own."""

    family = "snappea"
    requirements: tuple[str, ...] = (DJANGO, "inotify_simple==2.0.1")
    installed: tuple[str, ...] = ("snappea",)
    table = "snappea_task"

    def __init__(
        self, name: str, title: str, measured: frozenset[str] = EVERYTHING, synchronous: str = "NORMAL"
    ) -> None:
        super().__init__(name, title, measured)
        self.synchronous = synchronous

    def prepare(self, directory: Path) -> list[str]:
        (directory / "snappea.sqlite3-wakeup").touch()  # exists since the first Foreman
        return ["-m", "django", "migrate", "--using=snappea", "-v", "0"]

    def multiply(self, directory: Path, times: int) -> None:
        multiply_row(directory / "snappea.sqlite3", self.table, times)

    def fill(self, directory: Path, rows: int) -> None:
        """Write rows that are ready."""
        connection = sqlite3.connect(directory / "snappea.sqlite3")
        with connection:
            connection.execute(CROWD, (rows,))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def size(self, directory: Path) -> int:
        """Return the size of its database on disk, in bytes."""
        return (directory / "snappea.sqlite3").stat().st_size

    def worker(self) -> list[str]:
        return ["-m", "django", "runsnappea", "-v", "0"]

    def django_settings(self, directory: Path) -> dict[str, Any]:
        settings = super().django_settings(directory)
        queue = {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "snappea.sqlite3"}
        settings["DATABASES"]["snappea"] = queue
        settings["DATABASE_ROUTERS"] = ["snappea.router.SnappeaRouter"]
        settings["SNAPPEA"] = {"NUM_WORKERS": WORKERS, "SYNCHRONOUS": self.synchronous}
        return settings

    def task(self, function: Function) -> Any:
        from snappea import task

        return task(function)

    def bulk_enqueuer(self, task: Any) -> Callable[[list[tuple[Any, ...]]], object]:
        enqueue: Callable[[list[tuple[Any, ...]]], object] = task.delay_many
        return enqueue

    def schedule(self, task: Any) -> None:
        task.apply_async(countdown=FAR)
