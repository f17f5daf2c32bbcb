"""BeanQueue on SQLAlchemy, without Django; rows are kept, with an event for each."""

import os
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from .base import FAR, WORKERS, Function
from .postgres import PORT, OnPostgres
from .procrastinate import by_name


class BeanQueue(OnPostgres):
    """A process for each worker, the default.

    With threads it may not learn of a new task for a minute: it listens on one connection of a pool,
    and waits on any.
    """

    family = "beanqueue"
    requirements = ("beanqueue==1.2.0", "psycopg2-binary==2.9.13")
    table = "bq_tasks"
    workers = f"{WORKERS} processes"
    worker_processes = WORKERS

    def prepare(self, directory: Path) -> list[str]:
        return ["-m", "tests.benchmarks.systems.beanqueue", "create_tables"]

    def worker(self) -> list[str]:
        return ["-m", "tests.benchmarks.systems.beanqueue", "process"]

    def set_up(self, directory: Path) -> None:
        bq = import_module("bq")
        address = f"postgresql+psycopg2://snappea@127.0.0.1:{os.environ[PORT]}/{self.database(directory)}"
        config = bq.Config(
            DATABASE_URL=address,
            PROCESSOR_PACKAGES=["tests.benchmarks.tasks"],
            METRICS_HTTP_SERVER_ENABLED=False,
        )
        self.app = bq.BeanQueue(config=config)
        self.task = self.app.processor()  # type: ignore[method-assign]  # it inspects its caller

    def enqueuer(self, task: Any) -> Function:
        session = self.app.make_session()

        def enqueue(**arguments: Any) -> None:
            session.add(task.run(**arguments))
            session.commit()

        return by_name(task._processor.func, enqueue)

    def schedule(self, task: Any) -> None:
        session, run = self.app.make_session(), task.run()
        run.scheduled_at = datetime.now(UTC) + timedelta(seconds=FAR)
        session.add(run)
        session.commit()

    def create_tables(self) -> None:
        import_module("bq.db.base").Base.metadata.create_all(bind=self.app.engine)

    def process(self) -> None:
        self.app.process_tasks(("default",))


if __name__ == "__main__":
    system = import_module("tests.benchmarks.tasks").system
    sys.exit({"create_tables": system.create_tables, "process": system.process}[sys.argv[1]]())
