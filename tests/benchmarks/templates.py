"""Prepared directories: made once for each system, copied for each trial."""

import os
import subprocess
from pathlib import Path

from .systems.base import System
from .trial import Trial, finish, start


class Templates:
    """Directories of empty queues, and of queues with tasks to drain."""

    def __init__(self, home: Path, tasks: int, behind: int) -> None:
        self._home = home
        self._tasks = tasks
        self._behind = behind
        self._cores = os.sched_getaffinity(0)

    def empty(self, system: System) -> Path:
        """Return a directory with an empty queue."""
        directory = self._home / f"{system.name}-empty"
        if not directory.exists():
            directory.mkdir()
            system.open(directory, None)
            if arguments := system.prepare(directory):
                finish(start(system, directory, arguments, self._cores, subprocess.PIPE), directory)
        return directory

    def full(self, system: System) -> tuple[Path, int]:
        """Return a directory with tasks to drain between two marks, and how many they are."""
        tasks = int(self._tasks * system.share)
        directory = self._home / f"{system.name}-full"
        if not directory.exists():
            with Trial(system, self.empty(system), self._cores) as trial:
                trial.enqueue("between_marks", tasks)
                system.crowd(trial.directory, self._behind)
                (trial.directory / "told").unlink()
                trial.directory.rename(directory)
                trial.directory.mkdir()  # for the trial to remove
        return directory, tasks
