"""The common part of the queues on PostgreSQL, and Snappea as one of them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base import EVERYTHING, WORKERS, System
from .django_project import DjangoSystem
from .snappea import Snappea

if TYPE_CHECKING:
    import psycopg

#: The address of the server that is started for the benchmarks.
PORT = "BENCHMARK_POSTGRES_PORT"
CROWD = """
    INSERT INTO snappea_task (task_name, args, enqueued_at)
    SELECT 'tests.benchmarks.tasks.nothing', '[' || (i %% 1000) || ']', '2026-01-01'
    FROM generate_series(1, %s) AS i"""


def connect(database: str) -> "psycopg.Connection[Any]":
    """Return a connection to the server, outside of any system."""
    import psycopg

    return psycopg.connect(
        host="127.0.0.1", port=os.environ[PORT], user="snappea", dbname=database, autocommit=True
    )


class OnPostgres(System):
    """Has a database on the server for each directory; a file there contains its name."""

    store = "PostgreSQL"
    #: The table with its tasks.
    table = ""

    def __init__(self, name: str, title: str, measured: frozenset[str] = EVERYTHING, processes: int = 1):
        super().__init__(name, title, measured if processes == 1 else frozenset(("drain",)))
        if processes > 1:
            self.worker_processes = processes
            self.workers = f"{processes} x {WORKERS} threads"
            self.is_drawn = False

    def open(self, directory: Path, template: Path | None) -> None:
        from psycopg import sql

        name = directory.name.replace("-", "_").lower()
        source = self.database(template) if template else "template0"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with connect("postgres") as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(source)))
        (directory / "database").write_text(name)

    def rest(self, directory: Path) -> None:
        with connect(self.database(directory)) as connection:
            connection.execute("VACUUM ANALYZE")  # as the server itself does within a minute

    def close(self, directory: Path) -> None:
        from psycopg import sql

        if (directory / "database").exists():
            with connect("postgres") as connection:
                name = sql.Identifier(self.database(directory))
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def multiply(self, directory: Path, times: int) -> None:
        columns = "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
        with connect(self.database(directory)) as connection:
            found = connection.execute(columns, (self.table,)).fetchall()
            names = ", ".join(f'"{name}"' for (name,) in found if name != "id")
            connection.execute(
                f"INSERT INTO {self.table} ({names}) "
                f"SELECT {names} FROM {self.table}, generate_series(2, %s)",
                (times,),
            )

    def database(self, directory: Path) -> str:
        """Return the name of the database that belongs to a directory."""
        return (directory / "database").read_text()


class DjangoOnPostgres(OnPostgres, DjangoSystem):
    """A queue in Django's default database, on the server."""

    def django_settings(self, directory: Path) -> dict[str, Any]:
        database = {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": os.environ[PORT],
            "USER": "snappea",
            "NAME": self.database(directory),
        }
        return {**super().django_settings(directory), "DATABASES": {"default": database}}


class SnappeaOnPostgres(DjangoOnPostgres, Snappea):
    """Any number of Foremen, each with its threads."""

    requirements = (*Snappea.requirements, "psycopg[binary]==3.3.9")
    table = "snappea_task"

    def prepare(self, directory: Path) -> list[str]:
        return ["-m", "django", "migrate", "-v", "0"]

    def django_settings(self, directory: Path) -> dict[str, Any]:
        settings = DjangoOnPostgres.django_settings(self, directory)
        return {**settings, "SNAPPEA": {"DATABASE": "default", "NUM_WORKERS": WORKERS}}

    def fill(self, directory: Path, rows: int) -> None:
        with connect(self.database(directory)) as connection:
            connection.execute(CROWD, (rows,))
        self.rest(directory)

    def size(self, directory: Path) -> int:
        with connect(self.database(directory)) as connection:
            found = connection.execute("SELECT pg_total_relation_size('snappea_task')").fetchone()
        return int(found[0]) if found else 0
