"""Format status, tasks and schedules as text for the command line."""

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
from ..models import Task
from ..monitoring.formatting import duration, exact, size
from ..monitoring.task_log import Record, records
from ..monitoring.why import Reason
from ..queue.clock import as_datetime
from ..queue.dialects import told
from ..schedules import Listed
from ..tasks.discovery import find
from ..tasks.function import is_sensitive

HIDDEN = "(hidden: the task is sensitive)"
#: How many of the tasks that another one waits for are listed.
MOST_IDS = 10
#: The columns that are derived from a task's arguments.
KEYS = ("unique_key", "lane")
#: How often to show progress, in seconds: on a terminal, where the line is replaced, and elsewhere.
REDRAW, REPEAT = 0.2, 10.0


class Progress:
    """Shows the progress of a command that takes long. `left`: counts the tasks that are left to change."""

    def __init__(self, stream: OutputWrapper, verb: str, left: Callable[[], int]) -> None:
        self._stream, self._verb, self._left = stream, verb, left
        self._is_terminal = stream.isatty()
        self._every = REDRAW if self._is_terminal else REPEAT
        self._next = time.monotonic() + self._every
        self._total: int | None = None

    def __call__(self, done: int) -> None:
        """Show the progress from time to time."""
        here = time.monotonic()
        if here < self._next:
            return
        self._next = here + self._every
        if self._total is None:
            self._total = done + self._left()
        share = min(1.0, done / max(1, self._total))
        line = f"{self._verb} {done:,} of {self._total:,} ({share:.0%})"
        self._write(f"\r[{'#' * int(20 * share):20}] {line}\x1b[K" if self._is_terminal else f"{line}\n")

    def clear(self) -> None:
        """Remove the line from a terminal."""
        if self._total is not None and self._is_terminal:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text, style_func=str, ending="")
        self._stream.flush()


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table, with numbers aligned to the right."""
    cells = [["-" if cell is None else clean(str(cell)) for cell in row] for row in rows]
    columns = []
    for header, *column in zip(headers, *cells, strict=True):
        is_number = all(cell == "-" or cell[:1].isdigit() for cell in column)
        width = max(map(len, (header, *column)))
        columns.append([f"{cell:{'>' if is_number else '<'}{width}}" for cell in (header, *column)])
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)] if cells else []


def _span(seconds: float | None) -> str | None:
    return None if seconds is None else duration(seconds)


def status(seen: dict[str, Any]) -> list[str]:
    """Return the lines of a `stats.snapshot()`."""
    lines = [_foreman(info) for info in seen["foremen"]]
    if not lines and uses_celery():
        lines = ["Celery is the engine. Tasks that are left in the queue's database:"]
    elif not lines:
        lines = ["No Foreman runs. Start it: python manage.py runsnappea"]
    lines.append("Tasks: " + ", ".join(f"{told(count)} {state}" for state, count in seen["counts"].items()))
    if seen["oldest"] is not None:
        lines.append(f"The oldest ready task has waited for {_span(seen['oldest'])}")
    queues = table(
        ("QUEUE", "READY", "HELD", "RUNNING", "OLDEST", "LIMIT", ""),
        [
            (
                *(queue["name"], told(queue["ready"]), queue["held"], queue["running"]),
                *(_span(queue["oldest"]), queue["limit"], "paused" if queue["paused_since"] else ""),
            )
            for queue in seen["queues"]
        ],
    )
    running = table(("RUNNING", "TASK", "FOR", "LIMIT", ""), map(_running, seen["running"]))
    tasks = table(
        ("TASK", "PENDING", "RUNNING", "FAILED", "DONE IN 1 H", "MEAN", "95 %"),
        [
            (
                *(task["name"], f"{task['pending']}{'+' * task['has_more']}", task["running"]),
                told(task["kept"]),
                *(task["done"], _span(task["mean"]), _span(task["p95"])),
            )
            for task in seen["tasks"]
        ],
    )
    for block in (queues, running, tasks):
        lines += ["", *block] if block else []
    return lines


def _foreman(info: dict[str, Any]) -> str:
    since = _span((timezone.now() - info["since"]).total_seconds())
    memory = f", {size(info['memory'])}" if info["memory"] else ""
    on_loop = f", {info['on_loop']} on the event loop" if info["on_loop"] else ""
    stuck = f", {len(info['stuck'])} stuck" if info["stuck"] else ""
    return (
        f"Foreman: pid {info['pid']} on {clean(info['host'])}, for {since}{memory}, "
        f"{info['busy']} tasks on {info['workers']} workers{on_loop}{stuck}"
    )


def _running(run: dict[str, Any]) -> tuple[object, ...]:
    done = "" if run["done"] is None else f"{run['done']:g}"
    progress = done if run["total"] is None else f"{done} of {run['total']:g}"
    notes = [progress, run["note"], "stuck" * run["is_stuck"], "terminating" * run["is_revoked"]]
    said = " ".join(note for note in notes if note)
    return run["id"], run["task_name"], _span(run["elapsed"]), _span(run["limit"]), said


def listed(tasks: Iterable[Task]) -> list[str]:
    """Return the lines of a list of tasks."""
    rows = []
    for task in tasks:
        moment = task.run_after if task.status == "scheduled" else task.finished_at or task.started_at
        last_line = task.error.strip().rpartition("\n")[2][:100]
        numbers = task.priority, task.attempts, exact(moment or task.enqueued_at)
        rows.append((task.pk, task.task_name, task.queue, *numbers, last_line))
    return table(("ID", "TASK", "QUEUE", "PRIORITY", "ATTEMPTS", "WHEN", "ERROR"), rows)


def at(moment: Any) -> str:
    """Return a time from the queue's database as text, even if it was written by hand."""
    try:
        return exact(as_datetime(moment))
    except (TypeError, ValueError):  # written by hand
        return clean(str(moment))


def as_data(task: Task) -> dict[str, Any]:
    """Return what may be shown of a task, as values for JSON."""
    data = {field.attname: getattr(task, field.attname) for field in task._meta.concrete_fields}
    data = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in data.items()}
    if is_sensitive(task, find(task.task_name)):
        keys = [key for key in KEYS if data[key] is not None]
        data |= dict.fromkeys(("args", "kwargs", "result", "steps", *keys), HIDDEN)
    return {**data, "errors": task.attempt_errors(), "log": [record._asdict() for record in records(task)]}


def one(task: Task) -> list[str]:
    """Return the lines with all details of a task."""
    data = as_data(task)
    errors, error, _log = data.pop("errors"), data.pop("error"), data.pop("log")
    lines = [f"{key:>15}: {clean(str(value))}" for key, value in data.items() if value not in (None, "")]
    if errors:
        lines += ["", "Failed attempts:"]
        lines += [
            f"  {line.get('attempt')}. at {at(line.get('at'))}: {clean(str(line.get('error')))}"
            for line in errors
        ]
    if error:
        lines += ["", *(clean(line) for line in error.splitlines())]
    if log := records(task):
        lines += ["", "Log:", *(line for record in log for line in _logged(record))]
    return lines


def reason(why: Reason) -> str:
    """Return the sentences that tell why a task waits."""
    ids = ", ".join(f"#{pk}" for pk in why.ids[:MOST_IDS]) + ", ..." * (len(why.ids) > MOST_IDS)
    return f"{why.text} It waits for: {ids}" if ids else why.text


def _logged(record: Record) -> list[str]:
    if record.left_out:
        return [f"  ... {record.left_out:,} records left out ..."]
    first, *more = record.message.split("\n")
    said = f"{record.attempt}. at {record.at and exact(record.at)} {record.level} {record.logger}: {first}"
    return [f"  {clean(said)}", *(f"    {clean(line)}" for line in more)]


def schedule(listed: Listed) -> list[str]:
    """Return the lines of a schedule."""
    (plan, row), planned = (listed.planned.plan, listed.row), listed.planned
    when = ", ".join(_in_zone(run, plan.timezone) for run in listed.runs)
    lines = [plan.name, f"    {plan.expression} ({plan.timezone})"]
    if planned.is_added or planned.declared:
        lines.append("    added by a user" if planned.is_added else "    changed by a user")
    if listed.problem:
        lines.append(f"    problem: {clean(listed.problem)}")
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
    """Return data as JSON, with times as text."""
    return json.dumps(data, indent=2, default=str, ensure_ascii=False)
