"""What the command line shows: how things stand, tasks, schedules, as text."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.core.management.base import OutputWrapper
from django.utils import timezone

from ..conf import uses_celery
from ..log import clean
from ..models import Schedule, Task
from ..monitoring.formatting import duration
from ..queue.clock import as_datetime, as_local
from ..schedules import Plan
from ..tasks.registry import find, is_sensitive

HIDDEN = "(hidden: the task is sensitive)"
#: Columns that are made of a task's arguments.
KEYS = ("unique_key", "lane")
#: How often progress is shown, in seconds: on a terminal, where the line is replaced, and elsewhere.
REDRAW, REPEAT = 0.2, 10.0


class Progress:
    """Shows how many of many tasks a command has changed, once that takes longer than a moment.

    `left`: returns how many are not yet changed; it is called once.
    """

    def __init__(self, stream: OutputWrapper, verb: str, left: Callable[[], int]) -> None:
        self._stream = stream
        self._verb = verb
        self._left = left
        self._every = REDRAW if stream.isatty() else REPEAT
        self._next = time.monotonic() + self._every
        self._total: int | None = None

    def __call__(self, done: int) -> None:
        """Take note of how many are changed."""
        here = time.monotonic()
        if here < self._next:
            return
        self._next = here + self._every
        if self._total is None:
            self._total = done + self._left()
        share = min(1.0, done / max(1, self._total))
        line = f"{self._verb} {done:,} of {self._total:,} ({share:.0%})"
        if self._every == REPEAT:
            self._write(f"{line}\n")
        else:
            self._write(f"\r[{'#' * int(20 * share):20}] {line}\x1b[K")

    def clear(self) -> None:
        """Remove the line from a terminal."""
        if self._total is not None and self._every == REDRAW:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text, style_func=str, ending="")
        self._stream.flush()


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table; a column whose cells are all numbers stands to the right."""
    cells = [["-" if cell is None else clean(str(cell)) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    to_the_right = [all(_is_number(cell) for cell in column) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, to_the_right, strict=True)
        ).rstrip()
        for line in (headers, *cells)
    ]


def _is_number(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit()


def _span(seconds: float | None) -> str | None:
    return None if seconds is None else duration(seconds)


def status(stands: dict[str, Any]) -> list[str]:
    """Return the lines of what `stats.snapshot()` tells."""
    counts = ", ".join(f"{count} {state}" for state, count in stands["counts"].items())
    foremen = [_foreman(alive) for alive in stands["foremen"]]
    lines = [*(foremen or [_nobody()]), f"Tasks: {counts}"]
    if stands["oldest"] is not None:
        lines.append(f"The oldest ready task has waited for {_span(stands['oldest'])}")
    for block in (_queues(stands["queues"]), _running(stands["running"]), _tasks(stands["tasks"])):
        lines += ["", *block] if block else []
    return lines


def _nobody() -> str:
    if uses_celery():
        return "Celery is in charge; what follows is what is left in the queue's database"
    return "No Foreman runs. Start it: python manage.py runsnappea"


def _foreman(alive: dict[str, Any]) -> str:
    memory = f", {alive['memory'] // 1024**2} MB" if alive["memory"] else ""
    stuck = f", {len(alive['stuck'])} stuck" if alive["stuck"] else ""
    on_loop = f", {alive['on_loop']} on the event loop" if alive["on_loop"] else ""
    since = _span((timezone.now() - alive["since"]).total_seconds())
    return (
        f"Foreman: pid {alive['pid']} on {clean(alive['host'])}, for {since}{memory}, "
        f"{alive['busy']} tasks on {alive['workers']} workers{on_loop}{stuck}"
    )


def _queues(queues: list[dict[str, Any]]) -> list[str]:
    headers = "QUEUE", "READY", "HELD", "RUNNING", "OLDEST", "LIMIT", ""
    return table(
        headers,
        [
            (
                *(queue["name"], queue["ready"], queue["held"], queue["running"]),
                *(_span(queue["oldest"]), queue["limit"], "paused" if queue["paused_since"] else ""),
            )
            for queue in queues
        ],
    )


def _running(running: list[dict[str, Any]]) -> list[str]:
    rows = []
    for run in running:
        done = "" if run["done"] is None else f"{run['done']:g}"
        progress = done if run["total"] is None else f"{done} of {run['total']:g}"
        notes = [progress, run["note"], "stuck" * run["is_stuck"], "to be ended" * run["is_revoked"]]
        said = " ".join(note for note in notes if note)
        rows.append((run["id"], run["task_name"], _span(run["elapsed"]), _span(run["limit"]), said))
    return table(("RUNS", "TASK", "FOR", "LIMIT", ""), rows)


def _tasks(tasks: list[dict[str, Any]]) -> list[str]:
    rows = [
        (
            task["name"],
            f"{task['pending']}{'+' * task['has_more']}",
            *(task["running"], task["kept"], task["done"], _span(task["mean"]), _span(task["p95"])),
        )
        for task in tasks
    ]
    return table(("TASK", "PENDING", "RUNNING", "FAILED", "DONE IN 1 H", "MEAN", "95 %"), rows)


def listed(tasks: Iterable[Task]) -> list[str]:
    """Return the lines of a list of tasks."""
    rows = [
        (
            *(task.pk, task.task_name, task.queue, task.priority, task.attempts),
            _moment(task.run_after if task.status == "scheduled" else task.finished_at or task.started_at)
            or _moment(task.enqueued_at),
            _last_line(task.error),
        )
        for task in tasks
    ]
    return table(("ID", "TASK", "QUEUE", "PRIORITY", "ATTEMPTS", "WHEN", "ERROR"), rows)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:100]


def _moment(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return f"{as_local(moment):%Y-%m-%d %H:%M:%S}"


def _at(moment: str) -> str | None:
    try:
        return _moment(as_datetime(moment))
    except (TypeError, ValueError):  # written by hand
        return clean(moment)


def as_data(task: Task) -> dict[str, Any]:
    """Return all of a task that may be shown, as JSON can hold it."""
    data = {field.attname: getattr(task, field.attname) for field in task._meta.concrete_fields}
    data = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in data.items()}
    hides = is_sensitive(task, find(task.task_name))
    keys = [key for key in KEYS if data[key] is not None]
    hidden = dict.fromkeys(("args", "kwargs", "result", *keys), HIDDEN) if hides else {}
    return {**data, "errors": task.attempt_errors(), **hidden}


def one(task: Task) -> list[str]:
    """Return the lines of all that is known of a task."""
    data = as_data(task)
    errors, error = data.pop("errors"), data.pop("error")
    lines = [f"{key:>15}: {clean(str(value))}" for key, value in data.items() if value not in (None, "")]
    if errors:
        lines += ["", "Attempts that did not succeed:"]
        lines += [f"  {line['attempt']}. at {_at(line['at'])}: {clean(line['error'])}" for line in errors]
    if error:
        lines += ["", *(clean(line) for line in error.splitlines())]
    return lines


def schedule(plan: Plan, row: Schedule | None, runs: list[datetime]) -> list[str]:
    """Return the lines of what is known of a schedule."""
    when = ", ".join(_in_zone(run, plan.timezone) for run in runs)
    lines = [plan.name, f"    {plan.expression} ({plan.timezone})"]
    if plan.task_name != plan.name:
        lines.append(f"    task: {plan.task_name}")
    lines.append("    paused" if row and row.is_paused else f"    next: {when or 'never'}")
    if row is None:
        lines.append("    not known to a Foreman yet")
    elif row.last_run:
        lines.append(f"    last: {_in_zone(row.last_run, plan.timezone)}, {row.outcome()}")
    return lines


def _in_zone(moment: datetime, zone: str) -> str:
    return f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M:%S %Z}"


def as_json(data: object) -> str:
    """Return data as JSON; what JSON does not know (times) as text."""
    return json.dumps(data, indent=2, default=str, ensure_ascii=False)
