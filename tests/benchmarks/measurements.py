"""The measurements: each is a function that takes a system and returns figures by name."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from .systems.base import System
from .systems.snappea import Snappea
from .templates import Templates
from .trial import PATIENCE, Trial, finish


@dataclass(frozen=True)
class Sizes:
    """How much to measure. Slow systems do as much as they can in a number of seconds."""

    calls: int = 10_000
    #: How many calls `bulk` makes at once, and how often.
    at_once: int = 10_000
    times: int = 10
    tasks: int = 20_000
    seconds: float = 4.0
    behind: int = 100_000
    questions: int = 200
    naps: int = 400
    #: How long it is left alone before and while its processor time is measured, in seconds.
    rest: float = 5.0
    idle: float = 10.0
    #: How many processes enqueue at once, and for how long, in seconds.
    writers: tuple[int, ...] = (8, 16)
    together: float = 5.0
    #: How many rows wait behind the others.
    backlogs: tuple[int, int] = (100_000, 1_000_000)


QUICK = Sizes(
    calls=500,
    at_once=500,
    times=2,
    tasks=3000,
    seconds=1.0,
    behind=2_000,
    questions=10,
    naps=40,
    rest=0.5,
    idle=1.0,
    writers=(8,),
    together=1.0,
    backlogs=(2_000, 20_000),
)
#: Measured instead of those of `Sizes` by `--limits`.
ALL_WRITERS = (1, 2, 4, 8, 16)
NAP_MILLISECONDS = 50


@dataclass(frozen=True)
class Bench:
    """Where and how to measure, apart from the system."""

    sizes: Sizes
    templates: Templates

    @property
    def milliseconds(self) -> int:
        """Return the time limit for a step that may never end."""
        return int(self.sizes.seconds * 1000)

    def trial(self, system: System) -> Trial:
        """Return a trial with an empty queue."""
        return Trial(system, self.templates.empty(system))


Figures = dict[str, float]
Measurement = Callable[[Bench, System], Figures]


def enqueue(bench: Bench, system: System) -> Figures:
    with bench.trial(system) as trial:
        return {"enqueue": trial.enqueue("one_by_one", bench.sizes.calls, bench.milliseconds)}


def bulk(bench: Bench, system: System) -> Figures:
    """Enqueue many calls at once."""
    with bench.trial(system) as trial:
        return {"bulk": trial.enqueue("bulk", bench.sizes.at_once, bench.sizes.times, bench.milliseconds)}


def drain(bench: Bench, system: System) -> Figures:
    return {"drain": _drained(bench, system, is_crowded=False)}


def crowded(bench: Bench, system: System) -> Figures:
    return {"crowded": _drained(bench, system, is_crowded=True)}


def _drained(bench: Bench, system: System, is_crowded: bool) -> float:
    template, tasks = bench.templates.full(system, is_crowded)
    with Trial(system, template) as trial:
        trial.start_worker()
        seen = trial.watch(lambda ran: ran >= tasks, bench.sizes.seconds)
    return rate(seen)


def rate(seen: list[tuple[float, int]]) -> float:
    """Return how many ran a second after the first tenth: not all workers start at the same moment.

    It is 0 if none ran, or too few.
    """
    if not seen:
        return 0.0
    ended, last = seen[-1]
    start = next(number for number, (_when, count) in enumerate(seen) if count >= last / 10)
    began, first = seen[start - 1 if start and start == len(seen) - 1 else start]
    return (last - first) / (ended - began) if last > first else 0.0


def stream(bench: Bench, system: System) -> Figures:
    with bench.trial(system) as trial:
        trial.start_idle_worker()
        process = trial.start_enqueuer("stream", bench.sizes.tasks, bench.milliseconds)
        seen = trial.watch(lambda ran: process.poll() is not None, PATIENCE)
        enqueued = json.loads(finish(process, trial.directory))
        seen += trial.watch(lambda ran: ran >= enqueued["count"], bench.sizes.seconds)
        ended, ran = next((when, count) for when, count in seen if count == seen[-1][1])
        return {"stream": ran / (ended - enqueued["began"])}


def latency(bench: Bench, system: System) -> Figures:
    with bench.trial(system) as trial:
        trial.start_idle_worker()
        first, *others = trial.enqueue("questions", bench.sizes.questions, 2 * bench.milliseconds)
        waited = sorted(others) or [first]  # the first call opens the database
        return {
            "pick-up p50": statistics.median(waited) * 1000,
            "pick-up p99": waited[int(len(waited) * 0.99)] * 1000,
        }


def naps(bench: Bench, system: System) -> Figures:
    with bench.trial(system) as trial:
        trial.start_idle_worker()
        trial.enqueue("naps", bench.sizes.naps, NAP_MILLISECONDS)
        told = trial.hear(bench.sizes.naps)
        return {"naps": max(end for _, end in told) - min(begin for begin, _ in told)}


def idle(bench: Bench, system: System) -> Figures:
    with bench.trial(system) as trial:
        trial.start_idle_worker()
        time.sleep(bench.sizes.rest)
        cpu, began = trial.cpu_seconds(), time.monotonic()
        time.sleep(bench.sizes.idle)
        used, memory = trial.cpu_seconds() - cpu, trial.resident_megabytes()
        taken = time.monotonic() - began
        (waited,) = trial.enqueue("questions", 1, 1)
        return {"idle CPU": used / taken * 1000, "memory": memory, "pick-up after idling": waited * 1000}


def writers(bench: Bench, system: System) -> Figures:
    """Enqueue from several processes at once, while the worker runs."""
    figures: Figures = {}
    for count in bench.sizes.writers:
        with bench.trial(system) as trial:
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


def backlog(bench: Bench, system: System) -> Figures:
    """Enqueue and drain in front of many other rows."""
    assert isinstance(system, Snappea)
    figures: Figures = {}
    template, tasks = bench.templates.full(system, False)
    for number, rows in enumerate(bench.sizes.backlogs):
        with Trial(system, template) as trial:
            system.fill(trial.directory, rows)
            figures[f"backlog {number} size"] = system.size(trial.directory) / 1e6
            rate_of_calls = trial.enqueue("one_by_one", bench.sizes.calls, bench.milliseconds)
            figures[f"backlog {number} enqueue"] = rate_of_calls
            trial.start_worker()
            figures[f"backlog {number} drain"] = rate(
                trial.watch(lambda ran: ran >= tasks, bench.sizes.seconds)
            )
    return figures


MEASUREMENTS: dict[str, Measurement] = {
    measurement.__name__: measurement
    for measurement in (enqueue, bulk, writers, drain, crowded, stream, latency, naps, idle, backlog)
}
