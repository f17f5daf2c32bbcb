"""The queues that keep their tasks on a PostgreSQL server: Snappea, procrastinate and BeanQueue."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from .base import WORKERS, Function, System
from .django_project import DjangoSystem
from .snappea import Snappea

#: Where the server listens, which is started for the benchmarks.
PORT = "BENCHMARK_POSTGRES_PORT"
CROWD = """
    INSERT INTO snappea_task (task_name, args, status, run_after, enqueued_at)
    SELECT 'tests.benchmarks.tasks.nothing', '[' || i || ']', %s, %s::timestamptz, '2026-01-01'
    FROM generate_series(1, %s) AS i"""
MEASURED = frozenset(("enqueue", "release", "latency"))


def connect(database: str) -> "psycopg.Connection[Any]":
    """Return a connection of somebody from outside."""
    return psycopg.connect(
        host="127.0.0.1", port=os.environ[PORT], user="snappea", dbname=database, autocommit=True
    )


class OnPostgres(System):
    """Has a database of its own on the server for each directory, whose name stands there in a file."""

    is_on_postgres = True
    #: The table from which its workers take tasks.
    table = ""
    #: What holds for the tasks that are still to be done.
    unfinished = "true"
    #: What is measured of it beside what is measured of all of them.
    more: frozenset[str] = frozenset()
    #: How many of a worker process's sessions ask for that table when it starts.
    sessions = 1

    def __init__(self, name: str, title: str, worker_processes: int = 1) -> None:
        is_one = worker_processes == 1
        super().__init__(name, title, (MEASURED | self.more) if is_one else frozenset(("release",)))
        self.worker_processes = worker_processes

    def open(self, directory: Path, template: Path | None) -> None:
        name = directory.name.replace("-", "_").lower()
        source = self.database(template) if template else "template0"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with connect("postgres") as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(source)))
        (directory / "database").write_text(name)

    def close(self, directory: Path) -> None:
        if (directory / "database").exists():
            with connect("postgres") as connection:
                name = sql.Identifier(self.database(directory))
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def crowd(self, directory: Path, rows: int) -> None:
        with connect(self.database(directory)) as connection:
            connection.execute("VACUUM ANALYZE")  # as the server itself does it within a minute

    @contextmanager
    def all_held_back(self, directory: Path) -> Iterator[Callable[[], bool]]:
        """Let none of its workers have a task in this block; yields what tells whether all of them ask."""
        wanted = self.worker_processes * self.sessions
        waiting = """
            SELECT count(*) >= %s FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'"""
        with connect(name := self.database(directory)) as outside, connect(name) as observer:
            outside.execute("BEGIN")
            outside.execute(f"LOCK TABLE {self.table} IN ACCESS EXCLUSIVE MODE")
            yield lambda: bool(observer.execute(waiting, (wanted,)).fetchone()[0])  # type: ignore[index]
            outside.execute("COMMIT")

    def wait_until_finished(self, directory: Path, patience: float) -> bool:
        """Wait until no task is left to be done. Tell whether that was soon enough, in seconds."""
        is_left = f"SELECT EXISTS (SELECT FROM {self.table} WHERE {self.unfinished})"
        deadline = time.monotonic() + patience
        with connect(self.database(directory)) as outside:
            while outside.execute(is_left).fetchone()[0]:  # type: ignore[index]
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.01)
        return True

    def database(self, directory: Path) -> str:
        """Return the name of the database that belongs to a directory."""
        return (directory / "database").read_text()


class DjangoOnPostgres(OnPostgres, DjangoSystem):
    """A queue in Django's default database, which is on the server."""

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

    table = "snappea_task"
    more = frozenset(("writers", "backlog"))

    def prepare(self, directory: Path) -> list[str]:
        return ["-m", "django", "migrate", "-v", "0"]

    def django_settings(self, directory: Path) -> dict[str, Any]:
        settings = DjangoOnPostgres.django_settings(self, directory)
        return {**settings, "SNAPPEA": {"DATABASE": "default", "NUM_WORKERS": WORKERS}}

    def fill(self, directory: Path, rows: int, kind: tuple[str, str | None]) -> None:
        with connect(self.database(directory)) as connection:
            connection.execute(CROWD, (*kind, rows))
        self.crowd(directory, rows)

    def size(self, directory: Path) -> int:
        with connect(self.database(directory)) as connection:
            found = connection.execute("SELECT pg_total_relation_size('snappea_task')").fetchone()
        return int(found[0]) if found else 0


class Procrastinate(DjangoOnPostgres):
    """procrastinate as a Django app: an event loop that runs our tasks in threads; rows are kept."""

    family = "procrastinate"
    requires = ("procrastinate",)
    installed = ("procrastinate.contrib.django",)
    share = 0.1
    table = "procrastinate_jobs"
    unfinished = "status IN ('todo', 'doing')"

    def worker(self) -> list[str]:
        return ["-m", "django", "procrastinate", "worker", "--concurrency", str(WORKERS)]

    def set_up(self, directory: Path) -> None:
        from django.apps import apps

        if not apps.models_ready:  # as they are when the app looks for tasks
            super().set_up(directory)
        self.app = import_module("procrastinate.contrib.django").app

    def task(self, function: Function) -> Any:
        return self.app.task(function)

    def enqueuer(self, task: Any) -> Function:
        return _by_name(task.func, task.defer)


class BeanQueue(OnPostgres):
    """BeanQueue on SQLAlchemy, without Django; rows are kept, with an event for each.

    A worker runs one task at a time unless it is told to have threads. Then it may not hear of a new task
    for a minute: it listens on one connection of a pool, and waits on any.
    """

    family = "beanqueue"
    requires = ("bq", "psycopg2")
    share = 0.05
    table = "bq_tasks"
    unfinished = "state IN ('PENDING', 'PROCESSING')"
    sessions = 2

    def __init__(self, name: str, title: str, worker_processes: int = 1, threads: int = 1) -> None:
        super().__init__(name, title, worker_processes)
        self.threads = threads
        if threads > 1:
            self.measured = frozenset(("release",))

    def prepare(self, directory: Path) -> list[str]:
        return ["-m", "tests.benchmarks.systems.postgres", "create_tables"]

    def worker(self) -> list[str]:
        return ["-m", "tests.benchmarks.systems.postgres", "process"]

    def set_up(self, directory: Path) -> None:
        bq = import_module("bq")
        address = f"postgresql+psycopg2://snappea@127.0.0.1:{os.environ[PORT]}/{self.database(directory)}"
        config = bq.Config(
            DATABASE_URL=address,
            PROCESSOR_PACKAGES=["tests.benchmarks.tasks"],
            MAX_WORKER_THREADS=self.threads,
            BATCH_SIZE=self.threads,
            METRICS_HTTP_SERVER_ENABLED=False,
        )
        self.app = bq.BeanQueue(config=config)
        self.task = self.app.processor()  # type: ignore[method-assign]  # it looks at who calls it

    def enqueuer(self, task: Any) -> Function:
        session = self.app.make_session()

        def enqueue(**arguments: Any) -> None:
            session.add(task.run(**arguments))
            session.commit()

        return _by_name(task._processor.func, enqueue)

    def create_tables(self) -> None:
        import_module("bq.db.base").Base.metadata.create_all(bind=self.app.engine)

    def process(self) -> None:
        self.app.process_tasks(("default",))


def _by_name(function: Function, call: Callable[..., Any]) -> Function:
    """Return a call with arguments by their position of what takes them by name only."""
    names = list(signature(function).parameters)
    return lambda *arguments: call(**dict(zip(names, arguments, strict=True)))


if __name__ == "__main__":
    system = import_module("tests.benchmarks.tasks").system
    sys.exit({"create_tables": system.create_tables, "process": system.process}[sys.argv[1]]())
