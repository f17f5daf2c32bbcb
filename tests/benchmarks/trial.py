"""One measurement of one system: its directory, its processes, and what they tell."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from .systems.base import System

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
#: How long anything may take before it counts as hung, in seconds.
PATIENCE = 120.0


class TrialFailed(Exception):
    """A process failed or hung; the message says which."""


def start(
    system: System, directory: Path, arguments: Sequence[str], cores: set[int], output: Any
) -> "subprocess.Popen[str]":
    """Start a Python process of a system on some of the cores."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
        "BENCHMARK_SYSTEM": system.name,
        "BENCHMARK_DIRECTORY": str(directory),
    }
    with open(directory / "log", "a") as log:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output or log,
            stderr=log,
            text=True,
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
        )


def finish(process: "subprocess.Popen[str]", directory: Path) -> str:
    """Wait for a process to end well, and return what it printed."""
    try:
        printed, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise TrialFailed(f"{process.args!r} took more than {PATIENCE:g} s") from None
    if process.returncode:
        raise TrialFailed(f"{process.args!r} failed: {(directory / 'log').read_text()[-1000:]}")
    return printed


class Trial:
    """A copy of a prepared directory with worker and enqueuing processes, gone when it is left.

    >>> with Trial(system, template, cores) as trial:
    ...     trial.start_worker()
    ...     began, ended = trial.hear(2)
    """

    def __init__(self, system: System, template: Path, cores: set[int]) -> None:
        self.system = system
        self.cores = cores
        self.directory = Path(tempfile.mkdtemp(prefix="trial-", dir=template.parent))
        self.workers: list[subprocess.Popen[str]] = []
        self._unread = b""
        for file in template.iterdir():
            _copy(file, self.directory / file.name)
        system.open(self.directory, template)
        os.mkfifo(self.directory / "told")
        self._pipe = os.open(self.directory / "told", os.O_RDWR | os.O_NONBLOCK)

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop_worker()
        os.close(self._pipe)
        self.system.close(self.directory)
        shutil.rmtree(self.directory)

    def start_worker(self) -> None:
        """Start as many processes as WORKERS workers take."""
        for _ in range(self.system.worker_processes):
            arguments = self.system.worker()
            self.workers.append(start(self.system, self.directory, arguments, self.cores, None))

    def start_idle_worker(self) -> None:
        """Start the worker, and return when it has run a task and come to rest."""
        self.start_worker()
        before = -1.0
        while self.cpu_seconds() - before > 0.02:
            before = self.cpu_seconds()
            time.sleep(0.5)
        self.enqueue("marks", 1)
        self.hear(1)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that the workers will bring about."""
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > deadline or any(worker.poll() for worker in self.workers):
                raise TrialFailed(f"{self.system.title}: {(self.directory / 'log').read_text()[-1000:]}")
            time.sleep(0.01)

    def stop_worker(self) -> None:
        """End the worker's processes, the hard way if need be."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.workers.clear()

    def enqueue(self, action: str, *numbers: float) -> Any:
        """Run an action of the enqueuing program to its end, and return its result."""
        arguments = ["-m", "tests.benchmarks.enqueuer", action, *map(str, numbers)]
        process = start(self.system, self.directory, arguments, self.cores, subprocess.PIPE)
        return json.loads(finish(process, self.directory))

    def enqueue_together(self, count: int, seconds: float) -> tuple[list[float], int]:
        """Let so many processes enqueue at once, for so long.

        Returns what each of their calls took, and how many of them were refused.
        """
        arguments = ["-m", "tests.benchmarks.enqueuer", "together", f"{seconds * 1000:.0f}"]
        processes = [
            start(self.system, self.directory, arguments, self.cores, subprocess.PIPE) for _ in range(count)
        ]
        self.hear(count)
        (self.directory / "soon").write_text(str(time.monotonic()))
        (self.directory / "soon").rename(self.directory / "go")
        with ThreadPoolExecutor(count) as readers:  # what they print is more than a pipe holds
            printed = readers.map(partial(finish, directory=self.directory), processes)
            told = list(map(json.loads, printed))
        return [taken for one in told for taken in one["calls"]], sum(one["refused"] for one in told)

    def hear(self, count: int) -> list[list[float]]:
        """Return the next lines that the tasks tell, as the numbers in them."""
        deadline = time.monotonic() + PATIENCE
        lines = self._unread.split(b"\n")
        while len(lines) <= count:
            if not select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                log = (self.directory / "log").read_text()[-1000:]
                raise TrialFailed(f"{len(lines) - 1} of {count} lines came in {PATIENCE:g} s: {log}")
            self._unread += os.read(self._pipe, 65536)
            lines = self._unread.split(b"\n")
        self._unread = b"\n".join(lines[count:])
        return [[float(number) for number in line.split()] for line in lines[:count]]

    # what /proc says of the worker's processes

    def cpu_seconds(self) -> float:
        """Return the processor time that they have had."""
        total = 0
        for worker in self.workers:
            fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])  # utime and stime
        return total / TICKS

    def written_bytes(self) -> int:
        """Return how many bytes they caused to be written to disk."""
        return sum(_figure(worker.pid, "io", "write_bytes:") for worker in self.workers)

    def resident_megabytes(self) -> float:
        """Return the memory that they have, shared pages counted in each."""
        return sum(_figure(worker.pid, "status", "VmRSS:") for worker in self.workers) / 1024

    def changed_files(self) -> dict[str, int]:
        """Return when each file of the queue was last changed."""
        files = [file for file in self.directory.iterdir() if file.name not in ("log", "told")]
        return {file.name: file.stat().st_mtime_ns for file in files}


def _figure(pid: int, file: str, key: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with open(target, "rb") as copied:
        os.fsync(copied.fileno())  # so that the first checkpoint does not have to wait for it
