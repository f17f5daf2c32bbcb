"""PgQueuer on psycopg, without Django: an event loop that runs our tasks in threads; rows are deleted."""

import asyncio
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from .base import EVERYTHING, FAR, WORKERS, Function
from .postgres import PORT, OnPostgres

#: How many jobs a worker takes at once: more than its threads run, as it waits for the server meanwhile.
AT_ONCE = 100


class PgQueuer(OnPostgres):
    """One worker for each process. Its tasks are coroutines, so each runs ours in a thread."""

    family = "pgqueuer"
    requirements = ("pgqueuer[psycopg,cli]==1.6.0", "psycopg[binary]==3.3.9")
    table = "pgqueuer"

    def __init__(self, name: str, title: str, processes: int = 1) -> None:
        super().__init__(name, title, EVERYTHING | {"bulk"}, processes)
        self.functions: dict[str, Function] = {}

    def prepare(self, directory: Path) -> list[str]:
        return ["-m", "pgqueuer", "--pg-dsn", self.address(directory), "install"]

    def worker(self) -> list[str]:
        return ["-m", "tests.benchmarks.systems.pgqueuer"]

    def address(self, directory: Path) -> str:
        return f"postgresql://snappea@127.0.0.1:{os.environ[PORT]}/{self.database(directory)}"

    def set_up(self, directory: Path) -> None:
        self.directory = directory

    def task(self, function: Function) -> Any:
        self.functions[function.__name__] = function
        return function

    def queries(self) -> Any:
        """Return what enqueues, on a connection of its own."""
        driver = import_module("pgqueuer.adapters.drivers.psycopg")
        connection = import_module("psycopg").connect(self.address(self.directory), autocommit=True)
        return import_module("pgqueuer.queries").SyncQueries(driver.SyncPsycopgDriver(connection))

    def enqueuer(self, task: Any) -> Function:
        queries = self.queries()
        return lambda *arguments: queries.enqueue(task.__name__, json.dumps(arguments).encode())

    def bulk_enqueuer(self, task: Any) -> Callable[[list[tuple[Any, ...]]], object]:
        queries = self.queries()

        def enqueue(calls: list[tuple[Any, ...]]) -> None:
            payloads = [json.dumps(arguments).encode() for arguments in calls]
            queries.enqueue([task.__name__] * len(calls), payloads, [0] * len(calls))

        return enqueue

    def schedule(self, task: Any) -> None:
        self.queries().enqueue(task.__name__, b"[]", execute_after=timedelta(seconds=FAR))


async def work() -> None:
    """Run a worker with all tasks; its own command needs an older typer."""
    pgqueuer, psycopg = import_module("pgqueuer"), import_module("psycopg")
    system = import_module("tests.benchmarks.tasks").system
    address = system.address(system.directory)
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        worker = pgqueuer.PgQueuer(import_module("pgqueuer.db").PsycopgDriver(connection))
        threads = ThreadPoolExecutor(WORKERS)
        for name, function in system.functions.items():
            worker.entrypoint(name)(in_thread(function, threads))
        await worker.run(batch_size=AT_ONCE)


def in_thread(function: Function, threads: ThreadPoolExecutor) -> Function:
    """Return a coroutine function that calls a function with the arguments of a job."""

    async def run(job: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(threads, lambda: function(*json.loads(job.payload)))

    return run


if __name__ == "__main__":
    asyncio.run(work())
