"""What happened to a task, and what is to come, as a list of events."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from django.contrib.admin.models import LogEntry
from django.utils import timezone

from ..models import WAITING, Status, Task
from ..monitoring.formatting import duration, plain
from ..monitoring.tracebacks import Part, traceback_parts
from ..queue.clock import as_datetime

#: The kinds of events that end an attempt, and of the one that says how long it runs until now.
_ENDS = ("failed", "interrupted", "cancelled", "successful", "running")


class Event(NamedTuple):
    """An event. `kind`: what happened; `number`: of the attempt; `at`: None if unknown.

    `text`: the error, or what the `user` has done. `span`: how long the task had waited or run, or until
    an event to come.
    """

    kind: str
    at: datetime | None
    number: int | None = None
    text: str = ""
    user: str = ""
    parts: list[Part] = []
    span: str = ""
    is_ahead: bool = False


def timeline(task: Task, actions: Iterable[LogEntry] = ()) -> list[Event]:
    """Return the events of a task, the oldest first. `actions`: what users have done to it."""
    moments = {"enqueued": task.enqueued_at, "due": task.run_after}
    if task.status in (*WAITING, Status.SUCCESSFUL):
        moments["expires" if task.status in WAITING else "deleted"] = task.expires_at
    if task.status in (Status.READY, Status.RUNNING):
        moments["waiting" if task.status == Status.READY else "running"] = timezone.now()
    events = [Event(kind, at) for kind, at in moments.items() if at is not None]
    events += _attempts(task)
    for entry in actions:
        what, user = plain(entry.get_change_message()), plain(str(entry.user))
        events.append(Event("action", entry.action_time, None, what, user))
    return list(_with_spans(task, sorted(events, key=lambda event: event.at or task.enqueued_at)))


def _attempts(task: Task) -> Iterator[Event]:
    """Return the known starts (the first since the last requeue, and the last one), and all ends."""
    errors, at = task.attempt_errors(), None
    numbers = [number for error in errors if isinstance(number := error.get("attempt"), int)]
    last = max(numbers, default=0) + (task.status in (Status.RUNNING, Status.SUCCESSFUL) or not numbers)
    starts = {task.first_started_at: last - task.attempts + 1, task.started_at: last}
    yield from (Event("started", start, number) for start, number in starts.items() if start is not None)
    for error in errors:
        at, text = _moment(error.get("at")), plain(str(error.get("error", "")))
        kind = (
            task.status
            if task.status in ("interrupted", "cancelled") and at == task.finished_at
            else "failed"
        )
        if at is None:  # written by hand
            text = f"{plain(str(error.get('at', '')))} {text}".strip()
        parts = traceback_parts(str(error.get("traceback") or ""))
        yield Event(kind, at, error.get("attempt"), text, "", parts)
    if task.finished_at not in (None, at):
        yield Event(task.status, task.finished_at, last)


def _moment(text: Any) -> datetime | None:
    try:
        return as_datetime(text)
    except (TypeError, ValueError):
        return None


def _with_spans(task: Task, events: list[Event]) -> Iterator[Event]:
    now = timezone.now()
    since, began = task.enqueued_at, None
    for event in events:
        at, start = event.at or since, None
        if event.kind in ("started", "waiting"):
            start = since
        elif event.kind in _ENDS:
            start, began = began, None
        elif at > now:
            start = now
        span = duration(max(0.0, (at - start).total_seconds())) if start else ""
        yield event._replace(span=span, is_ahead=at > now)
        since, began = at, at if event.kind == "started" else began
