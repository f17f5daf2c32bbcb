"""What the benchmarks have to know of a task queue to measure it."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Function = Callable[..., Any]
#: With how many workers everything is measured.
WORKERS = 8
EVERYTHING = frozenset(("enqueue", "drain", "stream", "latency", "naps", "idle"))


class System:
    """A task queue under test, in one configuration.

    The first half is asked by the process that measures; the second half runs in the processes
    that are measured, where `tests.benchmarks.tasks` declares the tasks.
    """

    #: Which queue this is a configuration of.
    family = ""
    #: The modules without which it cannot be measured.
    requires: tuple[str, ...] = ()
    #: How to install them.
    cure = "pip install -e '.[bench]'"
    #: How many of its worker processes make WORKERS workers.
    worker_processes = 1
    #: Which part of the usual number of tasks it gets: less for the slow, so that a run stays short.
    share = 1.0
    #: Whether it keeps its tasks on a PostgreSQL server.
    is_on_postgres = False
    #: Which part of the usual number of questions, where it polls so seldom that each takes long.
    questions_share = 1.0

    def __init__(self, name: str, title: str, measured: frozenset[str] = EVERYTHING) -> None:
        self.name = name
        self.title = title
        self.measured = measured

    def missing(self) -> list[str]:
        """Name the modules that it needs and that are not installed."""
        return [module for module in self.requires if not find_spec(module)]

    def open(self, directory: Path, template: Path | None) -> None:
        """Make what it has outside of a new directory, as a copy of what belongs to a template."""

    def close(self, directory: Path) -> None:
        """Remove that."""

    def prepare(self, directory: Path) -> list[str]:
        """Return the arguments for Python that make an empty queue; none if there is nothing to do."""
        return []

    def crowd(self, directory: Path, rows: int) -> None:
        """Put rows behind the tasks that are to be drained."""

    def worker(self) -> list[str]:
        """Return the arguments for Python that start a worker process."""
        raise NotImplementedError

    # in the processes that are measured

    def django_settings(self, directory: Path) -> dict[str, Any]:
        """Return its Django settings."""
        return {}

    def set_up(self, directory: Path) -> None:
        """Get ready to declare tasks."""

    def task(self, function: Function) -> Any:
        """Declare a task."""
        raise NotImplementedError

    def enqueuer(self, task: Any) -> Function:
        """Return what enqueues a task when it is called with the task's arguments."""
        raise NotImplementedError
