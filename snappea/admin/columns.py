"""The list of each state: its columns, filters and order."""

from datetime import datetime
from typing import Any, NamedTuple

from django.utils import timezone
from django.utils.html import format_html

from ..models import Gate, Status, Task
from ..monitoring.formatting import NOTHING, duration, exact, one_line, plain
from .filters import ExceptionFilter, PlaceFilter, QueueFilter, TaskFilter


def ago(moment: datetime | None) -> str:
    """Show a time relative to now, with the exact time as a tooltip."""
    if moment is None:
        return NOTHING
    seconds = (timezone.now() - moment).total_seconds()
    words = f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact(moment), words)


def state_label(status: str) -> str:
    """Return the admin's name of a state; an invalid state unchanged."""
    return str(Status(status).label) if status in Status.values else plain(status)


# The function's name is the column's heading and CSS class.


def task(row: Task) -> str:
    return f"{plain(row.task_name)} #{row.pk}"


def queue(row: Task) -> str:
    return plain(row.queue)


def finished(row: Task) -> str:
    return ago(row.finished_at)


def started(row: Task) -> str:
    return ago(row.started_at)


def due(row: Task) -> str:
    return ago(row.run_after)


def since(row: Task) -> str:
    return ago(row.run_after or row.enqueued_at)


def waiting_for(row: Any) -> str:
    if row.is_paused:
        return "its queue to be resumed"
    return "a worker" if row.gate == Gate.OPEN else "a limit: max_concurrency or rate_limit"


def attempts(row: Task) -> str:
    return f"{row.attempts} ({row.interruptions} interrupted)" if row.interruptions else str(row.attempts)


def error(row: Task) -> str:
    return one_line(row.error)


def run_time(row: Task) -> str:
    if row.started_at is None or row.finished_at is None:
        return NOTHING
    return duration((row.finished_at - row.started_at).total_seconds())


def progress(row: Task) -> str:
    note = "terminating " * row.is_revoked + plain(row.progress_note[:200])
    if row.progress_done is None:
        return note or NOTHING
    if not row.progress_total:
        return f"{row.progress_done:g} {note}"
    share = row.progress_done / row.progress_total
    bar = '<progress value="{}" max="1" aria-label="Progress"></progress> {}&nbsp;% {}'
    return format_html(bar, f"{share:.4f}", f"{share * 100:.0f}", note)


class Layout(NamedTuple):
    """The options of a list, by their names in Django."""

    list_display: tuple[Any, ...]
    list_filter: tuple[Any, ...]
    ordering: tuple[str, ...]


_WAITING = (QueueFilter, TaskFilter, "enqueued_at")
_KEPT = (QueueFilter, TaskFilter, "finished_at")
_PROBLEM = (task, queue, finished, attempts, error)

LAYOUTS = {
    Status.SCHEDULED: Layout((task, queue, due, attempts, error), _WAITING, ("run_after", "pk")),
    Status.READY: Layout((task, queue, "priority", since, attempts, waiting_for), _WAITING, ("pk",)),
    Status.RUNNING: Layout((task, queue, started, attempts, progress), _WAITING, ("pk",)),
    Status.FAILED: Layout(_PROBLEM, (ExceptionFilter, PlaceFilter, *_KEPT), ("-pk",)),
    Status.INTERRUPTED: Layout(_PROBLEM, _KEPT, ("-pk",)),
    Status.SUCCESSFUL: Layout((task, queue, finished, run_time, attempts), _KEPT, ("-pk",)),
    Status.CANCELLED: Layout(_PROBLEM, _KEPT, ("-pk",)),
}
