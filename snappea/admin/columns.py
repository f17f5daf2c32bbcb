"""What a row of a list shows of a task."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _

from ..models import Gate, Status, Task
from ..monitoring.formatting import MOST, NOTHING, duration, named_arguments, one_line, plain, when
from ..tasks.discovery import find
from ..tasks.function import is_sensitive, registry
from .search import spelled

#: How much of the arguments is shown, in characters.
MOST_OF_ARGUMENTS = 240
#: How many tags are shown: a row may have been written by hand.
MOST_TAGS = 40


def ago(moment: datetime | None, units: int = 2) -> str:
    """Show a time relative to now, in so many units, with the exact time as a tooltip."""
    if moment is None:
        return NOTHING
    seconds = (timezone.now() - moment).total_seconds()
    words = _("%(duration)s ago") if seconds >= 0 else _("in %(duration)s")
    seconds = abs(seconds)  # without seconds that change with each refresh
    shown = words % {"duration": duration(seconds - seconds % 60 if seconds >= 60 else seconds, units)}
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), when(moment), shown)


def state_label(status: str) -> str:
    """Return the admin's name of a state; an invalid state unchanged."""
    return str(Status(status).label) if status in Status.values else plain(status)


def short_name(name: str) -> str:
    """Return the last part of a task's name, or all of it if another task's name ends in the same way."""
    last = name.rpartition(".")[2]
    return plain(name if any(one != name and one.endswith(f".{last}") for one in registry) else last)


def tags(row: Task) -> list[tuple[str, str]]:
    """Return the tags of a task, each with the search that finds the tasks that have it."""
    return [(plain(tag), spelled("tag", tag)) for tag in row.tags.split()[:MOST_TAGS]]


def arguments(row: Task) -> str:
    """Return the arguments of a call in one line, cut: `order=77, customer="x"`."""
    if is_sensitive(row, find(row.task_name)):
        return _("hidden")
    is_long = len(row.args) + len(row.kwargs) > MOST  # not worth the time
    named = [("args", row.args), ("kwargs", row.kwargs)] if is_long else named_arguments(row)
    text = plain(", ".join(f"{name}={value[:MOST_OF_ARGUMENTS]}" for name, value in named))
    return text if len(text) <= MOST_OF_ARGUMENTS else f"{text[: MOST_OF_ARGUMENTS - 1]}…"


def listed(row: Task, paused: Collection[str] = ()) -> dict[str, Any]:
    """Return what a list shows of a task. `paused`: the paused queues."""
    label, moment = _moment(row)
    return {
        "id": row.pk,
        "name": plain(row.task_name),
        "short": short_name(row.task_name),
        "tags": tags(row),
        "status": plain(row.status),
        "state": state_label(row.status),
        "arguments": arguments(row),
        "queue": plain(row.queue),
        "age": ago(row.enqueued_at, 1),
        "moment": ago(moment, 1),
        "moment_label": label,
        "duration": _run_time(row),
        "note": _note(row, paused),
        "share": _share(row),
    }


def _run_time(row: Task) -> str:
    end = timezone.now() if row.status == Status.RUNNING else row.finished_at
    if row.started_at is None or end is None or row.status in (Status.SCHEDULED, Status.READY):
        return NOTHING
    return duration((end - row.started_at).total_seconds())


def _moment(row: Task) -> tuple[str, datetime | None]:
    """Return the time that matters in a state, and what it is."""
    if row.status == Status.SCHEDULED:
        return _("Due"), row.run_after
    if row.status == Status.RUNNING:
        return _("Started"), row.started_at
    return _("Ended"), row.finished_at


def _note(row: Task, paused: Collection[str]) -> str:
    if row.status == Status.READY:
        return waiting_for(row, paused)
    if row.status != Status.RUNNING:
        return one_line(row.error)
    done = "" if row.progress_done is None or row.progress_total else f"{row.progress_done:g} "
    return f"{_('terminating')} " * row.is_revoked + done + plain(row.progress_note[:MOST_OF_ARGUMENTS])


def waiting_for(row: Task, paused: Collection[str] = ()) -> str:
    """Return why a ready task does not run; "" if it only waits for a worker. `paused`: the paused queues."""
    if row.queue in paused:
        return _("waits for its queue to be resumed")
    if row.gate == Gate.OPEN or (row.gate == Gate.NEW and row.lane is None):
        return ""
    return _("waits for a limit: max_concurrency or rate_limit")


def _share(row: Task) -> str:
    """Return how much of a running task is done, for a progress bar; "" if it is unknown."""
    if row.status != Status.RUNNING or row.progress_done is None or not row.progress_total:
        return ""
    return f"{min(max(row.progress_done / row.progress_total, 0.0), 1.0):.4f}"
