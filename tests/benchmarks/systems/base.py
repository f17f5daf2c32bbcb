"""What the benchmarks must know about a task queue to measure it."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

Function = Callable[..., Any]
#: The directory with these files.
ROOT = Path(__file__).parents[3]
#: The number of workers for all measurements.
WORKERS = 8
#: What is measured of each system.
EVERYTHING = frozenset(("enqueue", "writers", "drain", "crowded", "stream", "latency", "naps", "idle"))
#: The version of Django for all systems that need it.
DJANGO = "django==5.2.19"
#: In how many seconds scheduled tasks are due: after the measurement, and as late as dramatiq can.
FAR = 6 * 24 * 3600


class System:
    """A task queue under test, in one configuration.

    The measuring process calls the first half. The second half runs in the processes that are measured, where
    `tests.benchmarks.tasks` declares the tasks. Both import all of these files, so a package that only one
    environment has is imported in a method.
    """

    #: The queue that this is a configuration of.
    family = ""
    #: The packages to install, with versions.
    requirements: tuple[str, ...] = ()
    #: The oldest Python that it supports.
    oldest_python = (3, 11)
    #: Where the tasks are.
    store = "SQLite"
    #: The kind of its workers.
    workers = f"{WORKERS} threads"
    #: How often it polls, in seconds, if it does.
    looks_every = 0.0
    #: Whether the charts show it.
    is_drawn = True
    #: The number of worker processes to start.
    worker_processes = 1

    def __init__(self, name: str, title: str, measured: frozenset[str] = EVERYTHING) -> None:
        self.name = name
        self.title = title
        self.measured = measured
        #: Its name in `SYSTEMS`, which the processes that are measured know.
        self.registered = name
        #: Where those processes find the package `snappea`.
        self.home = ROOT
        #: The interpreter of its environment.
        self.python = Path(sys.executable)

    def at(self, revision: str, home: Path) -> Self:
        """Return this system with the package `snappea` of a revision, which is in the directory `home`."""
        other = copy.copy(self)
        other.name, other.title = f"{self.name}@{revision}", f"{self.title}, {revision}"
        other.home = home
        return other

    def script(self, name: str) -> str:
        """Return the path of a program in its environment."""
        return str(self.python.parent / name)

    def open(self, directory: Path, template: Path | None) -> None:
        """Create what it keeps outside of a new directory, as a copy of the template's."""

    def rest(self, directory: Path) -> None:
        """Prepare that to be copied: it becomes a template's."""

    def close(self, directory: Path) -> None:
        """Remove that."""

    def prepare(self, directory: Path) -> list[str]:
        """Return the arguments for Python that create an empty queue; none if there is nothing to do."""
        return []

    def multiply(self, directory: Path, times: int) -> None:
        """Create `count` copies of the only task, which is scheduled."""
        raise NotImplementedError

    def worker(self) -> list[str]:
        """Return the arguments for Python that start a worker process."""
        raise NotImplementedError

    # in the processes that are measured

    #: An object that some of the workers must be given.
    app: Any = None

    def django_settings(self, directory: Path) -> dict[str, Any]:
        """Return its Django settings."""
        return {}

    def set_up(self, directory: Path) -> None:
        """Prepare to declare tasks."""

    def task(self, function: Function) -> Any:
        """Declare a task."""
        raise NotImplementedError

    def enqueuer(self, task: Any) -> Function:
        """Return the function that enqueues a task with given arguments, often called `delay`."""
        enqueue: Function = task.delay
        return enqueue

    def bulk_enqueuer(self, task: Any) -> Callable[[list[tuple[Any, ...]]], object]:
        """Return the function that enqueues a task once for each tuple of arguments, if there is one."""
        raise NotImplementedError

    def schedule(self, task: Any) -> None:
        """Enqueue a task without arguments that is due in FAR seconds."""
        raise NotImplementedError
