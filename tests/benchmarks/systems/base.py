"""What the benchmarks have to know of a task queue to measure it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Function = Callable[..., Any]
#: With how many workers everything is measured.
WORKERS = 8
EVERYTHING = frozenset(("enqueue", "drain", "crowded", "stream", "latency", "naps", "idle"))
#: The Django of all that need one.
DJANGO = "django==5.2.19"
#: In how many seconds what is scheduled is due: later than anybody measures, and as late as dramatiq can.
FAR = 6 * 24 * 3600


class System:
    """A task queue under test, in one configuration.

    The first half is asked by the process that measures; the second half runs in the processes
    that are measured, where `tests.benchmarks.tasks` declares the tasks. Both import all of these
    files, so what only one of them has is imported in the methods.
    """

    #: Which queue this is a configuration of.
    family = ""
    #: What is to be installed for it, with versions.
    requirements: tuple[str, ...] = ()
    #: On which Python it runs at least.
    oldest_python = (3, 11)
    #: Where the tasks are.
    store = "SQLite"
    #: What works on them.
    workers = f"{WORKERS} threads"
    #: How often it looks for tasks, in seconds, if it does so at even intervals.
    looks_every = 0.0
    #: Whether it is drawn in the charts.
    is_drawn = True
    #: How many worker processes are started.
    worker_processes = 1

    def __init__(self, name: str, title: str, measured: frozenset[str] = EVERYTHING) -> None:
        self.name = name
        self.title = title
        self.measured = measured
        #: The interpreter of its environment.
        self.python = Path(sys.executable)

    def script(self, name: str) -> str:
        """Return where a program of its environment is."""
        return str(self.python.parent / name)

    def open(self, directory: Path, template: Path | None) -> None:
        """Make what it has outside of a new directory, as a copy of what belongs to a template."""

    def rest(self, directory: Path) -> None:
        """Get that ready to be copied, from now on a template's."""

    def close(self, directory: Path) -> None:
        """Remove that."""

    def prepare(self, directory: Path) -> list[str]:
        """Return the arguments for Python that make an empty queue; none if there is nothing to do."""
        return []

    def multiply(self, directory: Path, times: int) -> None:
        """Make so many of the only task that there is, which is scheduled."""
        raise NotImplementedError

    def worker(self) -> list[str]:
        """Return the arguments for Python that start a worker process."""
        raise NotImplementedError

    # in the processes that are measured

    #: What some of the workers want to be shown.
    app: Any = None

    def django_settings(self, directory: Path) -> dict[str, Any]:
        """Return its Django settings."""
        return {}

    def set_up(self, directory: Path) -> None:
        """Get ready to declare tasks."""

    def task(self, function: Function) -> Any:
        """Declare a task."""
        raise NotImplementedError

    def enqueuer(self, task: Any) -> Function:
        """Return what enqueues a task when it is called with the task's arguments: most call it `delay`."""
        enqueue: Function = task.delay
        return enqueue

    def schedule(self, task: Any) -> None:
        """Enqueue a task without arguments that is due in FAR seconds."""
        raise NotImplementedError
