"""`metrics(request)`: how things stand and what was done, in the text format of Prometheus.

>>> path("metrics/", snappea.metrics.metrics)
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import stats
from .health import refusal
from .monitoring import inspect
from .queue.availability import UNUSABLE, explain, trouble
from .queue.foremen import foremen_at_work

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ENDED = ("done", "failed", "retried", "cancelled", "expired")

Samples = Iterable[tuple[Mapping[str, str], float | None]]


@login_not_required
@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with all metrics; with 503 if the queue cannot be used, with 403 to who may not ask."""
    if refused := refusal(request):
        return refused
    try:
        if not (broken := trouble()):
            return HttpResponse("".join(_families()), content_type=CONTENT_TYPE)
    except UNUSABLE as error:
        broken = explain(error)
    return HttpResponse(f"# {broken}\n", status=503, content_type=CONTENT_TYPE)


def _families() -> Iterator[str]:
    runs = inspect.running(inspect.in_flight())
    foremen = foremen_at_work()
    yield _family("foreman_up", "gauge", "How many Foremen run.", [({}, float(len(foremen)))])
    if foremen:
        who = [({"host": alive.host, "pid": str(alive.pid)}, alive) for alive in foremen]
        since = [(labels, alive.since.timestamp()) for labels, alive in who]
        yield _family("foreman_start_time_seconds", "gauge", "When it was started.", since)
        memory = [(labels, inspect.memory_of(alive) or None) for labels, alive in who]
        yield _family("foreman_memory_bytes", "gauge", "What it has in memory.", memory)
        workers = sum(alive.workers for alive in foremen)
        yield _family("workers", "gauge", "How many tasks may run in threads.", [({}, workers)])
        stuck = sum(len(alive.stuck) for alive in foremen)
        yield _family("workers_stuck", "gauge", "How many hang beyond their limit.", [({}, stuck)])
    counts = [({"status": status}, number) for status, number in inspect.counts().items()]
    yield _family("tasks", "gauge", "How many tasks are in a state.", counts)
    yield from _of_queues(inspect.queues(runs))
    yield from _of_tasks(stats.totals())


def _of_queues(queues: Iterable[inspect.QueueState]) -> Iterator[str]:
    depth = [
        ({"queue": queue.name, "state": state}, float(getattr(queue, state)))
        for queue in queues
        for state in ("ready", "held", "running")
    ]
    yield _family("queue_tasks", "gauge", "How many tasks of a queue are ready, held or running.", depth)
    oldest = [({"queue": queue.name}, queue.oldest or 0.0) for queue in queues]
    yield _family("queue_oldest_seconds", "gauge", "How long the oldest ready one has waited.", oldest)
    paused = [({"queue": queue.name}, float(queue.paused_since is not None)) for queue in queues]
    yield _family("queue_paused", "gauge", "Whether the queue is paused.", paused)


def _of_tasks(totals: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    ended = [
        ({"task": name, "how": how}, float(total[how])) for name, total in totals.items() for how in _ENDED
    ]
    yield _family("ended_total", "counter", "How many runs, or tasks that were not run, ended how.", ended)
    for what, about in (("run", "How long tasks ran."), ("wait", "How long tasks waited for their start.")):
        times = [
            (f"_{part}", {"task": name}, total[key])
            for name, total in totals.items()
            for part, key in (("sum", f"{what}_sum"), ("count", "runs"))
        ]
        head = _head(f"{what}_seconds", "summary", about)
        yield head + "".join(_sample(f"{what}_seconds{part}", labels, value) for part, labels, value in times)


def _family(name: str, kind: str, about: str, samples: Samples) -> str:
    lines = [_sample(name, labels, value) for labels, value in samples if value is not None]
    return _head(name, kind, about) + "".join(lines) if lines else ""


def _head(name: str, kind: str, about: str) -> str:
    return f"# HELP snappea_{name} {about}\n# TYPE snappea_{name} {kind}\n"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    said = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"snappea_{name}{{{said}}} {value:.17g}\n" if said else f"snappea_{name} {value:.17g}\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
