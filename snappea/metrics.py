"""`metrics(request)`: the state of the queue and totals, in Prometheus' text format.

>>> path("metrics/", snappea.metrics.metrics)
"""

from collections.abc import Iterable, Iterator, Mapping

from django.http import HttpRequest, HttpResponse

from . import stats
from .errors import QueueUnavailable
from .foreman.statistics import COUNTS
from .monitoring import inspect
from .monitoring.permissions import monitored
from .queue.availability import usable
from .queue.foremen import foremen_at_work

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@monitored
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with all metrics, or 503 if the queue cannot be used. Requests without permission get 403.

    >>> urlpatterns += [path("metrics/", metrics)]
    """
    try:
        with usable():
            text, status = "".join(_families()), 200
    except QueueUnavailable as error:
        text, status = f"# {error}\n", 503
    return HttpResponse(text, status=status, content_type=CONTENT_TYPE)


def _families() -> Iterator[str]:
    foremen, runs = foremen_at_work(), inspect.running(inspect.in_flight())
    yield _family("foreman_up", "gauge", "Number of Foremen at work.", [({}, len(foremen))])
    if foremen:
        labels = [{"host": foreman.host, "pid": str(foreman.pid)} for foreman in foremen]
        since = zip(labels, (foreman.since.timestamp() for foreman in foremen), strict=True)
        yield _family("foreman_start_time_seconds", "gauge", "Unix time at which the Foreman started.", since)
        memory = zip(labels, (inspect.memory_of(foreman) or None for foreman in foremen), strict=True)
        yield _family("foreman_memory_bytes", "gauge", "Resident memory of the Foreman.", memory)
        workers = sum(foreman.workers for foreman in foremen)
        yield _family("workers", "gauge", "Number of worker threads.", [({}, workers)])
        stuck = sum(len(foreman.stuck) for foreman in foremen)
        yield _family("workers_stuck", "gauge", "Workers that are stuck beyond a time limit.", [({}, stuck)])
    counts = [({"status": status}, number) for status, number in inspect.counts().items()]
    yield _family("tasks", "gauge", "Number of tasks by status.", counts)
    yield from _of_queues(inspect.queues(runs))
    yield from _of_tasks(stats.totals())


def _of_queues(queues: Iterable[inspect.QueueState]) -> Iterator[str]:
    depth = [
        ({"queue": queue.name, "state": state}, getattr(queue, state))
        for queue in queues
        for state in ("ready", "held", "running")
    ]
    yield _family("queue_tasks", "gauge", "Tasks of a queue that are ready, held or running.", depth)
    oldest = [({"queue": queue.name}, queue.oldest or 0) for queue in queues]
    yield _family("queue_oldest_seconds", "gauge", "How long the oldest ready task has waited.", oldest)
    paused = [({"queue": queue.name}, queue.paused_since is not None) for queue in queues]
    yield _family("queue_paused", "gauge", "1 if the queue is paused.", paused)


def _of_tasks(totals: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    ended = [({"task": name, "how": how}, total[how]) for name, total in totals.items() for how in COUNTS]
    yield _family("ended_total", "counter", "Runs by how they ended, and tasks that expired.", ended)
    for what, about in (("run", "Run time of tasks."), ("wait", "Time tasks waited until they started.")):
        yield _head(f"{what}_seconds", "summary", about)
        for name, total in totals.items():
            yield _sample(f"{what}_seconds_sum", {"task": name}, total[f"{what}_sum"])
            yield _sample(f"{what}_seconds_count", {"task": name}, total["runs"])


def _family(
    name: str, kind: str, about: str, samples: Iterable[tuple[Mapping[str, str], float | None]]
) -> str:
    lines = [_sample(name, labels, value) for labels, value in samples if value is not None]
    return _head(name, kind, about) + "".join(lines) if lines else ""


def _head(name: str, kind: str, about: str) -> str:
    return f"# HELP snappea_{name} {about}\n# TYPE snappea_{name} {kind}\n"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    said = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"snappea_{name}{{{said}}} {value:.17g}\n" if said else f"snappea_{name} {value:.17g}\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
