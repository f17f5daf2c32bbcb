"""One measurement of one system: its directory, its processes, and what they report."""

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from .processes import family, memory, seconds
from .systems.base import ROOT, System

#: After how long a step counts as hung, in seconds.
PATIENCE = 60.0
#: Within how many seconds the first of many tasks must run.
FIRST = 20.0
#: How long to wait at most for an idle system to come to rest, in seconds.
REST = 10.0
#: The largest number of tasks that can be counted.
SLOTS = 1 << 15


class TrialFailed(Exception):
    """A process failed or hung; the message says which."""


def start(system: System, directory: Path, arguments: Sequence[str], output: Any) -> "subprocess.Popen[str]":
    """Start a Python process of a system, in its own session."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{system.home}{os.pathsep}{ROOT}",
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
        "BENCHMARK_SYSTEM": system.registered,
        "BENCHMARK_DIRECTORY": str(directory),
    }
    with open(directory / "log", "a") as log:
        return subprocess.Popen(
            [str(system.python), *arguments],
            cwd=system.home,  # the first place where Python looks for `snappea`
            env=environment,
            stdout=output or log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def finish(process: "subprocess.Popen[str]", directory: Path) -> str:
    """Wait for a process to end successfully, and return its output."""
    try:
        printed, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise TrialFailed(f"{process.args!r} took more than {PATIENCE:g} s") from None
    if process.returncode:
        raise TrialFailed(f"{process.args!r} failed: {_end_of_log(directory)}")
    return printed


def _end_of_log(directory: Path) -> str:
    return (directory / "log").read_text()[-1000:]


class Trial:
    """A copy of a prepared directory with worker and enqueuing processes; removed at the end of the block.

    >>> with Trial(system, template) as trial:
    ...     trial.start_worker()
    ...     when, how_many = trial.watch(lambda ran: ran == 1000, seconds=10)[-1]
    """

    #: The processor time of killed grandchildren, in all trials.
    inherited = 0.0

    def __init__(self, system: System, template: Path) -> None:
        self.system = system
        self.directory = Path(tempfile.mkdtemp(prefix="trial-", dir=template.parent))
        self.workers: list[subprocess.Popen[str]] = []
        self._enqueuers: list[subprocess.Popen[str]] = []
        self._unread = b""
        for file in template.iterdir():
            _copy(file, self.directory / file.name)
        system.open(self.directory, template)
        os.mkfifo(self.directory / "told")
        self._pipe = os.open(self.directory / "told", os.O_RDWR | os.O_NONBLOCK)
        (self.directory / "ran").write_bytes(bytes(SLOTS))
        self._ran = os.open(self.directory / "ran", os.O_RDONLY)

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stop()
        os.close(self._pipe)
        os.close(self._ran)
        self.system.close(self.directory)
        shutil.rmtree(self.directory)

    def leave(self, directory: Path) -> None:
        """Save the state in a directory, as a template."""
        self.system.rest(self.directory)
        for name in ("told", "ran"):
            (self.directory / name).unlink()
        self.directory.rename(directory)
        self.directory.mkdir()  # to be removed

    def start_worker(self) -> None:
        """Start the processes for WORKERS workers."""
        for _ in range(self.system.worker_processes):
            self.workers.append(start(self.system, self.directory, self.system.worker(), None))

    def start_idle_worker(self) -> None:
        """Start the worker, and return when it has run a task and come to rest."""
        self.start_worker()
        self.enqueue("marks", 1)
        self.hear(1)
        before, deadline = -1.0, time.monotonic() + REST
        while self.cpu_seconds() - before > 0.02 and time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(0.5)

    def _stop(self) -> None:
        """Kill all processes that it started, and their descendants: their state is thrown away."""
        ours = {worker.pid for worker in self.workers}
        for pid in self._family():
            Trial.inherited += seconds(pid) if pid not in ours else 0
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in (*self.workers, *(one for one in self._enqueuers if one.poll() is None)):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def enqueue(self, action: str, *numbers: int) -> Any:
        """Run an action of the enqueuing program to its end, and return its result."""
        return json.loads(finish(self.start_enqueuer(action, *numbers), self.directory))

    def start_enqueuer(self, action: str, *numbers: int) -> "subprocess.Popen[str]":
        """Start an action of the enqueuing program."""
        arguments = ["-m", "tests.benchmarks.enqueuer", action, *map(str, numbers)]
        process = start(self.system, self.directory, arguments, subprocess.PIPE)
        self._enqueuers.append(process)
        return process

    def enqueue_together(self, count: int, seconds: float) -> tuple[list[float], int]:
        """Let a number of processes enqueue at once, for a time.

        Returns the duration of each call, and how many were refused.
        """
        processes = [self.start_enqueuer("together", int(seconds * 1000)) for _ in range(count)]
        self.hear(count)
        (self.directory / "soon").write_text(str(time.monotonic()))
        (self.directory / "soon").rename(self.directory / "go")
        with ThreadPoolExecutor(count) as readers:  # their output is larger than a pipe
            printed = readers.map(partial(finish, directory=self.directory), processes)
            told = list(map(json.loads, printed))
        return [taken for one in told for taken in one["calls"]], sum(one["refused"] for one in told)

    def hear(self, count: int) -> list[list[float]]:
        """Return the numbers in the next lines that the tasks report."""
        deadline = time.monotonic() + PATIENCE
        lines = self._unread.split(b"\n")
        while len(lines) <= count:
            if not select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                log = _end_of_log(self.directory)
                raise TrialFailed(f"{len(lines) - 1} of {count} lines came in {PATIENCE:g} s: {log}")
            self._unread += os.read(self._pipe, 65536)
            lines = self._unread.split(b"\n")
        self._unread = b"\n".join(lines[count:])
        return [[float(number) for number in line.split()] for line in lines[:count]]

    def watch(self, is_enough: Callable[[int], bool], seconds: float) -> list[tuple[float, int]]:
        """Count every 2 ms how many tasks ran, until there are enough, or `seconds` after the first.

        Returns pairs of a time and a number, starting with the last look that saw none.
        """
        seen: list[tuple[float, int]] = []
        now = time.monotonic()
        deadline = now + FIRST
        while True:
            count, looked_before = os.pread(self._ran, SLOTS, 0).count(1), now
            now = time.monotonic()
            if not seen and count:
                seen.append((looked_before, 0))
                deadline = now + seconds
            if count > (seen[-1][1] if seen else 0):
                seen.append((now, count))
            if is_enough(count) or now > deadline:
                return seen
            if any(worker.poll() is not None for worker in self.workers):
                raise TrialFailed(f"{self.system.title} ended: {_end_of_log(self.directory)}")
            time.sleep(0.002)

    # the worker's processes in /proc

    def _family(self) -> list[int]:
        return [pid for worker in self.workers for pid in family(worker.pid)]

    def cpu_seconds(self) -> float:
        """Return the processor time that they have used."""
        return sum(map(seconds, self._family()))

    def resident_megabytes(self) -> float:
        """Return their memory; a shared page is divided among its processes."""
        return sum(map(memory, self._family())) / 1024


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with open(target, "rb") as copied:
        os.fsync(copied.fileno())  # so that the first checkpoint need not wait for it
