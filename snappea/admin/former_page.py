"""The page of a task in the list of a state, until the list of all tasks replaces it."""

from typing import Any

from django.contrib.admin.models import LogEntry
from django.utils.html import format_html

from ..models import Task
from ..monitoring.formatting import MOST, exact, plain, pretty, traceback_lines
from ..queue.clock import as_datetime
from ..tasks.discovery import find
from ..tasks.function import is_sensitive
from .columns import ago, state_label

HIDDEN = "not shown: the task is sensitive"


def details(task: Task) -> dict[str, Any]:
    """Return the template's context."""
    hides = is_sensitive(task, find(task.task_name))
    errors = task.attempt_errors()
    log = LogEntry.objects.filter(content_type__app_label="snappea", object_id=str(task.pk))
    moments = {
        "enqueued": task.enqueued_at,
        "due": task.run_after,
        "started": task.started_at,
        "ended": task.finished_at,
        "expires": task.expires_at,
    }
    return {
        "task": task,
        "title": f"{plain(task.task_name)} #{task.pk}",
        "label": state_label(task.status),
        "queue": plain(task.queue),
        "lane": plain(task.task_name if hides and task.lane else task.lane or ""),
        "moments": {name: ago(moment) for name, moment in moments.items() if moment is not None},
        "hides": HIDDEN if hides else "",
        "args": pretty(task.args),
        "kwargs": pretty(task.kwargs),
        "result": pretty(task.result),
        "note": plain(task.progress_note[:MOST]),
        "lines": traceback_lines(task.error),
        "attempts": [_attempt(error) for error in errors],
        "was_requeued": any(_number(error) > task.attempts for error in errors),
        "log": log.select_related("user").order_by("-action_time")[:50],
    }


def _number(error: dict[str, Any]) -> int:
    number = error.get("attempt")
    return number if isinstance(number, int) else 0


def _attempt(error: dict[str, Any]) -> dict[str, str]:
    shown = {key: plain(str(value)) for key, value in error.items() if value is not None}
    return {**shown, "at": _time(error.get("at"))}


def _time(moment: Any) -> str:
    """Show a time in the site's time zone, and anything else unchanged."""
    try:
        at = as_datetime(moment)
    except (TypeError, ValueError):
        return plain(str(moment)) if moment else ""
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), exact(at))
