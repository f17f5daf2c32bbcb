"""Prepared directories: created once for each system, and copied for each trial."""

import subprocess
from pathlib import Path

from .systems.base import System
from .trial import Trial, finish, start


class Templates:
    """Directories with empty queues, and with as many tasks to drain as can be enqueued in `seconds`."""

    def __init__(self, home: Path, tasks: int, seconds: float, behind: int) -> None:
        self._home = home
        self._tasks = tasks
        self._milliseconds = int(seconds * 1000)
        self._behind = behind
        self._counts: dict[Path, int] = {}

    def empty(self, system: System) -> Path:
        """Return a directory with an empty queue."""
        directory = self._home / f"empty-{system.name}"
        if not directory.exists():
            directory.mkdir()
            system.open(directory, None)
            if arguments := system.prepare(directory):
                finish(start(system, directory, arguments, subprocess.PIPE), directory)
            system.rest(directory)
        return directory

    def full(self, system: System, is_crowded: bool) -> tuple[Path, int]:
        """Return a directory with tasks to drain, and their number.

        If it is crowded, there are other tasks, which were enqueued before and are due another day.
        """
        directory = self._home / f"{'crowded' if is_crowded else 'full'}-{system.name}"
        if directory not in self._counts:
            with Trial(system, self.empty(system)) as trial:
                if is_crowded:
                    trial.enqueue("schedule")
                    system.multiply(trial.directory, self._behind)
                count = trial.enqueue("fill", self._tasks, self._milliseconds)
                trial.leave(directory)
            self._counts[directory] = count
        return directory, self._counts[directory]
