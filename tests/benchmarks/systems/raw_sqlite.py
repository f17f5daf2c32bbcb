"""Not a queue: Snappea's table and statements, by sqlite3 alone. It shows what SQLite and the disk allow."""

import json
import sqlite3
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from .base import Function
from .snappea import Snappea

#: How many tasks are taken and deleted at once: about as many as the Foreman at this speed.
BATCH = 500
#: How long it sleeps when there is no task, in seconds.
PAUSE = 0.005
NOW = "2026-01-01 00:00:00.000001"


class RawSqlite(Snappea):
    """The enqueuer has one connection in WAL mode, with one row per transaction; the worker is one thread."""

    family = "sqlite"
    workers = "1 thread"

    def __init__(self, name: str, title: str, synchronous: str) -> None:
        measured = frozenset(("enqueue", "bulk", "writers", "drain", "crowded", "stream"))
        super().__init__(name, title, measured, synchronous)

    def worker(self) -> list[str]:
        return ["-m", "tests.benchmarks.systems.raw_sqlite"]

    def set_up(self, directory: Path) -> None:
        self.connection = sqlite3.connect(directory / "snappea.sqlite3", isolation_level=None, timeout=30)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        snappea = import_module("snappea.queue.database")  # checkpoint the log as Snappea does
        pages = snappea.CHECKPOINT_AT[self.synchronous] // snappea.PAGE_SIZE
        limit = snappea.PRAGMAS["journal_size_limit"]
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        self.connection.execute(f"PRAGMA journal_size_limit = {limit}")

    def task(self, function: Function) -> Any:
        return function

    def enqueuer(self, task: Any) -> Function:
        execute, statement = self.connection.execute, import_module("snappea.queue.statements").INSERT
        return lambda *arguments: execute(statement, _row(task, arguments))

    def bulk_enqueuer(self, task: Any) -> Callable[[list[tuple[Any, ...]]], object]:
        execute, statement = self.connection.execute, import_module("snappea.queue.statements").INSERT_MANY
        name, _, *others = _row(task, ())

        def insert(calls: list[tuple[Any, ...]]) -> None:
            execute(statement, (name, *others, json.dumps(list(map(json.dumps, calls)))))

        return insert

    def schedule(self, task: Any) -> None:
        self.enqueuer(task)()
        self.connection.execute("UPDATE snappea_task SET status = 'scheduled', run_after = '2999-01-01'")

    def work(self, functions: dict[str, Function]) -> None:
        """Take tasks, run them and delete them, for ever."""
        execute, statements = self.connection.execute, import_module("snappea.queue.statements")
        done: list[int] = []
        while True:
            execute("BEGIN IMMEDIATE")
            execute(statements.SUCCEED_ALL, (json.dumps(done), 1, NOW))
            rows = execute(statements.CLAIM, (NOW, False, "default", "default", BATCH)).fetchall()
            execute("COMMIT")
            for row in rows:
                functions[row[3].rpartition(".")[2]](*json.loads(row[4]))
            done = [row[1] for row in rows]
            while len(done) < BATCH and not execute(statements.FIRST, (False, "default", 1)).fetchone():
                time.sleep(PAUSE)


def _row(task: Function, arguments: tuple[Any, ...]) -> tuple[object, ...]:
    name = f"{task.__module__}.{task.__qualname__}"
    return name, json.dumps(arguments), "{}", "default", 0, 0, 0, NOW


if __name__ == "__main__":
    tasks = import_module("tests.benchmarks.tasks")
    sys.exit(tasks.system.work({"nothing": tasks.nothing, "mark": tasks.mark}))
