"""The timeline of a task."""

import json
from datetime import timedelta

from django.utils import timezone

from snappea.admin.timeline import timeline
from snappea.models import Task


def test_a_timeline_tells_what_happened() -> None:
    start = timezone.now() - timedelta(hours=1)
    times = [start + timedelta(seconds=seconds) for seconds in (0, 3, 15, 20, 30)]
    errors = [(1, times[2], "E: first"), (2, times[4], "E: second")]
    lines = [json.dumps({"attempt": n, "at": f"{at:%F %T.%f}", "error": error}) for n, at, error in errors]
    row = Task(
        task_name="a.task",
        status="failed",
        enqueued_at=times[0],
        first_started_at=times[1],
        started_at=times[3],
        finished_at=times[4],
        attempts=2,
        errors="\n".join(lines),
    )
    assert [(event.kind, event.number, event.span, event.text) for event in timeline(row)] == [
        ("enqueued", None, "", ""),
        ("started", 1, "3.0 s", ""),
        ("failed", 1, "12 s", "E: first"),
        ("started", 2, "5.0 s", ""),
        ("failed", 2, "10 s", "E: second"),
    ]


def test_a_timeline_tells_what_is_to_come_and_goes_on() -> None:
    now = timezone.now()
    row = Task(status="scheduled", enqueued_at=now, run_after=now + timedelta(minutes=4, seconds=9))
    row.expires_at = now + timedelta(hours=1)
    assert [(event.kind, event.is_ahead) for event in timeline(row)] == [
        ("enqueued", False),
        ("due", True),
        ("expires", True),
    ]
    row.status, row.started_at, row.run_after, row.attempts = "running", now, None, 1
    row.errors = '{"attempt": 1, "at": "2026-01-01 10:00:00", "error": "of the time before the requeue"}'
    found = timeline(row)
    assert [(event.kind, event.number) for event in found if event.kind in ("started", "running")] == [
        ("started", 2),
        ("running", None),
    ]
    assert found[-1].span.endswith("ms")
