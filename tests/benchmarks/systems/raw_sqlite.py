"""No queue at all: single inserts of a similar row, by sqlite3 alone. What the file system allows."""

import sqlite3
from pathlib import Path
from typing import Any

from .base import Function, System

TABLE = """
    CREATE TABLE task (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, args TEXT NOT NULL, kwargs TEXT NOT NULL,
        queue TEXT NOT NULL, priority INTEGER NOT NULL, acks_late INTEGER NOT NULL,
        status TEXT NOT NULL DEFAULT 'ready', enqueued_at TEXT NOT NULL);
    CREATE INDEX ready ON task (priority DESC, id) WHERE status = 'ready'"""
INSERT = """
    INSERT INTO task (name, args, kwargs, queue, priority, acks_late, enqueued_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""


class RawSqlite(System):
    """One connection in WAL mode, one row per transaction, folding in left to others as with Snappea."""

    family = "sqlite"

    def __init__(self, name: str, title: str, synchronous: str) -> None:
        super().__init__(name, title, frozenset(("enqueue",)))
        self.synchronous = synchronous

    def set_up(self, directory: Path) -> None:
        self.connection = sqlite3.connect(directory / "raw.sqlite3", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        self.connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.connection.executescript(TABLE)

    def task(self, function: Function) -> Any:
        return f"{function.__module__}.{function.__qualname__}"

    def enqueuer(self, task: Any) -> Function:
        execute = self.connection.execute

        def insert(number: int) -> None:
            row = (task, f"[{number}]", "{}", "default", 0, False, "2026-01-01 00:00:00.000001")
            execute(INSERT, row)

        return insert
