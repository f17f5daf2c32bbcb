"""The results of the spike, in figures."""

from collections.abc import Sequence
from datetime import datetime

from example_project.gunicorn_conf import workers
from example_project.settings import EMAIL_FILE_PATH
from example_project.tracker.models import Event, Issue
from snappea.models import Task

from .spike import Answer


def lost_among(answers: Sequence[Answer], events: int) -> int:
    """Return how many events were not acknowledged, or acknowledged and not digested."""
    acknowledged = {answer.event_id for answer in answers if 200 <= answer.status < 300}
    digested = set(Event.objects.exclude(issue=None).values_list("event_id", flat=True))
    return events - len(acknowledged & digested)


def table(answers: Sequence[Answer], events: int, began: datetime, seconds: float, alone: float) -> str:
    """Return the table. `began`: the start of the spike; `seconds`: the time until the last answer.

    `alone`: how many tasks a second the queue ran without HTTP.
    """
    digested = Event.objects.exclude(issue=None)
    last = digested.order_by("digested_at").values_list("digested_at", flat=True).last()
    times = [answer.seconds for answer in answers]
    waits = [wait for wait in digested.values_list("waited", flat=True) if wait is not None]
    mails = len(list(EMAIL_FILE_PATH.glob("*.eml")))
    rows = [
        ("requests/s", _rate(len(answers), seconds)),
        ("response time, p50", _percentile(times, 50)),
        ("response time, p99", _percentile(times, 99)),
        ("digested/s", _rate(len(waits), (last - began).total_seconds() if last else 0.0)),
        ("pick-up latency, p50", _percentile(waits, 50)),
        ("pick-up latency, p99", _percentile(waits, 99)),
        ("queue alone, tasks/s", f"{alone:,.0f}"),
        ("issues", f"{Issue.objects.count():,}"),
        ("mails written", f"{mails:,}"),
        ("tasks left", f"{Task.objects.count():,}"),
        ("events sent", f"{len(answers):,}"),
        ("events digested", f"{len(waits):,}"),
        ("", f"{lost_among(answers, events):,} lost"),
    ]
    return "\n".join(f"  {label:22}{value:>12}" for label, value in rows)


def reason(answers: Sequence[Answer], seconds: float, alone: float) -> str:
    """Explain why there are few requests and many tasks a second."""
    requests = _rate(len(answers), seconds)
    return (
        f"  Why {requests} requests/s: this measures gunicorn and real HTTP on this machine, not the queue.\n"
        f"  Each of gunicorn's {workers} processes parses a request, unpacks the event and stores it, then\n"
        "  enqueues a task. The queue alone, without HTTP, runs "
        f"{alone:,.0f} tasks/s, including delay_many()."
    )


def conclusion(answers: Sequence[Answer], events: int, alone: float) -> str:
    """Return the result of the spike in one line."""
    waits = [wait for wait in Event.objects.values_list("waited", flat=True) if wait is not None]
    lost = lost_among(answers, events)
    return (
        f"Snappea: {events - lost:,} of {events:,} events digested, {lost:,} lost; started within "
        f"{_percentile(waits, 50)} (median); {alone:,.0f} tasks/s without HTTP."
    )


def _rate(number: int, seconds: float) -> str:
    return f"{number / seconds:,.0f}" if seconds > 0 else "-"


def _percentile(seconds: Sequence[float], percent: int) -> str:
    if not seconds:
        return "-"
    rank = min(len(seconds) - 1, len(seconds) * percent // 100)
    return f"{sorted(seconds)[rank] * 1000:,.1f} ms"
