"""The common part of the systems that are Django apps, and of those with SQLite files."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .base import DJANGO, FAR, System


def far() -> datetime:
    """Return when scheduled tasks are due."""
    return datetime.now(UTC) + timedelta(seconds=FAR)


def sqlite_database(file: Path) -> dict[str, Any]:
    """Return the fastest settings for a database that Django offers: WAL, NORMAL, IMMEDIATE."""
    options = {
        "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
    }
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": file, "OPTIONS": options}


def multiply_row(file: Path, table: str, times: int, unique: str = "") -> None:
    """Create copies of the only row of a table; each has its own key, a number or a UUID.

    `unique`: another column with a UUID.
    """
    connection = sqlite3.connect(file)
    names, values = [], []
    for _, name, kind, _, _, is_key in connection.execute(f"PRAGMA table_info({table})"):
        if not (is_key and kind.lower() == "integer"):
            names.append(f'"{name}"')
            values.append("lower(hex(randomblob(16)))" if is_key or name == unique else f'"{name}"')
    with connection:
        connection.execute(
            f"""INSERT INTO {table} ({", ".join(names)})
            WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n LIMIT ?)
            SELECT {", ".join(values)} FROM {table}, n""",
            (times - 1,),
        )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


class DjangoSystem(System):
    """A queue that keeps its tasks in Django's default database."""

    installed: tuple[str, ...] = ()
    requirements: tuple[str, ...] = (DJANGO,)
    #: The table of its scheduled tasks.
    table = ""

    def prepare(self, directory: Path) -> list[str]:
        return ["-m", "django", "migrate", "-v", "0"]

    def multiply(self, directory: Path, times: int) -> None:
        multiply_row(directory / "default.sqlite3", self.table, times)

    def django_settings(self, directory: Path) -> dict[str, Any]:
        return {
            "SECRET_KEY": "only for benchmarks",
            "USE_TZ": True,
            "INSTALLED_APPS": [*self.installed, "tests.benchmarks"],
            "DATABASES": {"default": sqlite_database(directory / "default.sqlite3")},
        }

    def set_up(self, directory: Path) -> None:
        import django
        from django.apps import apps

        if not apps.ready:  # as it is in a management command
            django.setup()
