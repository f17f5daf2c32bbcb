"""The tasks that a search finds, as CSV or JSON, which is streamed."""

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.http import StreamingHttpResponse

from ..models import Task
from ..monitoring.formatting import named_arguments
from ..queue.quarantine import quarantined
from ..tasks.discovery import find
from ..tasks.function import is_sensitive
from .search import Search

#: How many tasks a query reads. No read transaction lasts longer, so that the database can be checkpointed.
AT_ONCE = 1000
COLUMNS = (
    *("id", "task_name", "status", "queue", "priority", "enqueued_at", "run_after", "started_at"),
    *("finished_at", "attempts", "exception", "place", "error", "tags"),
)


class _Echo:
    def write(self, text: str) -> str:
        return text


def export(search: Search, kind: str) -> StreamingHttpResponse:
    """Return a file of what a search finds, the newest first. `kind`: "csv" or "json"."""
    rows = _rows(search)
    if kind == "csv":
        lines, content_type = _csv(rows), "text/csv; charset=utf-8"
    else:
        lines, content_type = _json(rows), "application/json"
    parts = (line.encode(errors="replace") for line in lines)  # JSON may contain half of a surrogate pair
    response = StreamingHttpResponse(parts, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="tasks.{kind}"'
    return response


def _rows(search: Search) -> Iterator[dict[str, Any]]:
    found = search.tasks().order_by("-pk").defer("errors", "result", "log", "steps")
    tasks, rows = found, list[Task]()
    while True:
        rows = quarantined(lambda tasks=tasks: list(tasks[:AT_ONCE]))  # type: ignore[misc]  # mypy infers no lambda with a default
        yield from map(_row, rows)
        if len(rows) < AT_ONCE:
            return
        tasks = found.filter(pk__lt=rows[-1].pk)


def _row(task: Task) -> dict[str, Any]:
    values = {name: getattr(task, name) for name in COLUMNS}
    if is_sensitive(task, find(task.task_name)):
        return {**values, "arguments": None}
    return {**values, "arguments": {name: _value(text) for name, text in named_arguments(task)}}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # arguments that are not JSON
        return text


def _json(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    before = "[\n"
    for row in rows:
        yield before + json.dumps(row, default=str, ensure_ascii=False)
        before = ",\n"
    yield "\n]\n" if before != "[\n" else "[]\n"


def _csv(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    write = csv.writer(_Echo()).writerow
    yield write((*COLUMNS, "arguments"))
    for row in rows:
        shown = json.dumps(row["arguments"], ensure_ascii=False) if row["arguments"] is not None else ""
        yield write([_cell(value) for value in {**row, "arguments": shown}.values()])


def _cell(value: Any) -> Any:
    """Return a value that a spreadsheet does not take for a formula."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value
