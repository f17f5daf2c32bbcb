"""What is measured: one function each, from a system on some cores to figures by name."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from .systems.base import System
from .systems.postgres import OnPostgres
from .systems.snappea import READY, Snappea
from .templates import Templates
from .trial import PATIENCE, Trial, TrialFailed


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    calls: int = 10_000
    tasks: int = 20_000
    behind: int = 1_000_000
    questions: int = 300
    naps: int = 400
    idle: float = 20.0
    #: How many processes enqueue at once, and for how many seconds.
    writers: tuple[int, ...] = (1, 2, 4, 8, 16)
    together: float = 5.0
    #: How many rows wait behind the others.
    backlogs: tuple[int, int] = (100_000, 1_000_000)
    #: How long to wait until all that is done once after the last task is done.
    rest: float = 12.0


QUICK = Sizes(
    calls=1000,
    tasks=2000,
    behind=20_000,
    questions=20,
    naps=80,
    idle=1.0,
    writers=(1, 2),
    together=1.0,
    backlogs=(2_000, 20_000),
    rest=1.0,
)
NAP_MILLISECONDS = 50


@dataclass(frozen=True)
class Bench:
    """Where and how to measure, but for the system and the cores."""

    sizes: Sizes
    templates: Templates

    def trial(self, system: System, cores: set[int]) -> Trial:
        """Return a trial with an empty queue."""
        return Trial(system, self.templates.empty(system), cores)


Figures = dict[str, float]
Measurement = Callable[[Bench, System, set[int]], Figures]


def enqueue(bench: Bench, system: System, cores: set[int]) -> Figures:
    with bench.trial(system, cores) as trial:
        calls = max(int(bench.sizes.calls * system.share), 500)
        return {"enqueue": trial.enqueue("one_by_one", calls)}


def drain(bench: Bench, system: System, cores: set[int]) -> Figures:
    template, tasks = bench.templates.full(system)
    with Trial(system, template, cores) as trial:
        trial.start_worker()
        (began,), (ended,) = trial.hear(2)
        return {"drain": tasks / (ended - began)}


def release(bench: Bench, system: System, cores: set[int]) -> Figures:
    """Drain, with a clock outside: all workers are let at the waiting tasks in the same moment."""
    assert isinstance(system, OnPostgres)
    template, tasks = bench.templates.full(system)
    with Trial(system, template, cores) as trial:
        with system.all_held_back(trial.directory) as all_wait:
            trial.start_worker()
            trial.wait_until(all_wait)
        began = time.monotonic()
        if not system.wait_until_finished(trial.directory, PATIENCE):
            raise TrialFailed(f"{system.title}: {tasks} tasks took more than {PATIENCE:g} s")
        return {"release": tasks / (time.monotonic() - began)}


def stream(bench: Bench, system: System, cores: set[int]) -> Figures:
    with bench.trial(system, cores) as trial:
        trial.start_idle_worker()
        tasks = int(bench.sizes.tasks * system.share)
        enqueued = trial.enqueue("stream", tasks)
        ((ended,),) = trial.hear(1)
        return {
            "stream": tasks / (ended - enqueued["began"]),
            "call p99": enqueued["p99"] * 1000,
            "call slowest": enqueued["slowest"] * 1000,
        }


def latency(bench: Bench, system: System, cores: set[int]) -> Figures:
    with bench.trial(system, cores) as trial:
        trial.start_idle_worker()
        count = int(bench.sizes.questions * system.questions_share)
        waited = sorted(trial.enqueue("questions", max(count, 5)))
        return {
            "pick-up p50": statistics.median(waited) * 1000,
            "pick-up p99": waited[int(len(waited) * 0.99)] * 1000,
        }


def naps(bench: Bench, system: System, cores: set[int]) -> Figures:
    with bench.trial(system, cores) as trial:
        trial.start_idle_worker()
        trial.enqueue("naps", bench.sizes.naps, NAP_MILLISECONDS)
        told = trial.hear(bench.sizes.naps)
        return {"naps": max(end for _, end in told) - min(begin for begin, _ in told)}


def idle(bench: Bench, system: System, cores: set[int]) -> Figures:
    with bench.trial(system, cores) as trial:
        trial.start_idle_worker()
        time.sleep(bench.sizes.rest)
        cpu, written, files = trial.cpu_seconds(), trial.written_bytes(), trial.changed_files()
        time.sleep(bench.sizes.idle)
        figures = {
            "idle CPU": trial.cpu_seconds() - cpu,
            "idle bytes": float(trial.written_bytes() - written),
            "idle changes": float(len(files.items() ^ trial.changed_files().items())),
            "memory": trial.resident_megabytes(),
        }
        (waited,) = trial.enqueue("questions", 1)
        return {**figures, "pick-up after idling": waited * 1000}


def writers(bench: Bench, system: System, cores: set[int]) -> Figures:
    """Enqueue by ever more processes at once, while the worker runs."""
    figures: Figures = {}
    for count in bench.sizes.writers:
        with bench.trial(system, cores) as trial:
            trial.start_idle_worker()
            taken, refused = trial.enqueue_together(count, bench.sizes.together)
        calls = sorted(taken)
        figures |= {
            f"writers {count}": (len(calls) - refused) / bench.sizes.together,
            f"writers {count} refused": refused,
            f"writers {count} p50": statistics.median(calls) * 1000,
            f"writers {count} p99": calls[int(len(calls) * 0.99)] * 1000,
            f"writers {count} slowest": calls[-1] * 1000,
        }
    return figures


def backlog(bench: Bench, system: System, cores: set[int]) -> Figures:
    """Enqueue, and drain, with many rows behind."""
    assert isinstance(system, Snappea)
    figures: Figures = {}
    tasks = int(bench.sizes.tasks * system.share)
    for number, rows in enumerate(bench.sizes.backlogs):
        with bench.trial(system, cores) as trial:
            trial.enqueue("between_marks", tasks)
            system.fill(trial.directory, rows, READY)
            figures[f"backlog {number} size"] = system.size(trial.directory) / 1e6
            figures[f"backlog {number} enqueue"] = trial.enqueue("one_by_one", bench.sizes.calls)
            trial.start_worker()
            (began,), (ended,) = trial.hear(2)
            figures[f"backlog {number} drain"] = tasks / (ended - began)
    return figures


MEASUREMENTS: dict[str, Measurement] = {
    measurement.__name__: measurement
    for measurement in (enqueue, drain, release, stream, latency, naps, idle, writers, backlog)
}
