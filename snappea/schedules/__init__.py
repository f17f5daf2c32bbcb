"""Periodic tasks: pause, resume, fire, change, add and remove schedules."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypedDict, Unpack

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import OuterRef, Subquery

from ..conf import uses_celery
from ..errors import ConfigurationError, refuse_event_loop
from ..models import Schedule, ScheduleRun, Status, Task
from ..queue.clock import now
from ..queue.database import RawConnection, connect, raw, ring_on_commit, transact, writing
from ..queue.dialects import statement
from ..tasks.discovery import discover, resolve
from ..tasks.function import TaskFunction
from ..tasks.results import AsyncResult
from . import rows
from .plans import Plan, checked, problems_of
from .plans import reason as reason
from .rows import ONE, Planned, matched, next_run, upcoming
from .triggers import as_option

_PAUSE = statement("UPDATE snappea_schedule SET is_paused = {true} WHERE name = ?")
_RESUME = statement("UPDATE snappea_schedule SET is_paused = {false}, next_run = ? WHERE name = ?")


class Options(TypedDict, total=False):
    """What `change()` and `add()` set, as in SNAPPEA["SCHEDULES"]. Either `cron` or `every` is the time."""

    cron: str
    every: float | timedelta
    timezone: str
    args: list[Any] | tuple[Any, ...]
    kwargs: dict[str, Any]
    queue: str | None
    catch_up: bool


def pause(name: str) -> bool:
    """Stop enqueueing a schedule's task. Return whether there is such a schedule.

    >>> pause("mail.tasks.send_digest")
    True
    """
    refuse_event_loop("schedules")
    with writing(connect()) as db:
        return bool(db.execute(_PAUSE, (name,)).rowcount)


def resume(name: str) -> bool:
    """Resume a schedule with its next run. Runs during the pause are skipped. Return whether it exists."""
    refuse_event_loop("schedules")
    db = connect()
    with db.wrap_database_errors, transact(db) as below:
        planned, moment = _find(below, name), now(db)
        if planned:
            is_missed = planned.next_run is None or planned.next_run <= moment
            kept = planned._replace(next_run=None) if is_missed else planned
            below.execute(_RESUME, (next_run(planned.plan, kept, moment), name))
    ring_on_commit(db)
    return planned is not None


def fire(name: str) -> AsyncResult:
    """Enqueue a schedule's task now, in addition to its regular runs.

    Raises LookupError if the schedule does not exist, and the errors of `delay()`.

    >>> fire("mail.tasks.send_digest").id
    42
    """
    refuse_event_loop("schedules")
    discover()  # a web process may not have imported the task
    db = connect()
    with transaction.atomic(using=db.alias):
        planned = _one(raw(db), name)
        plan = planned.plan
        result = plan.task(planned.is_added).apply_async(*plan.arguments(), queue=plan.queue)
        row = result.id if isinstance(result.id, int) else None  # Celery's ids are text
        rows.note_last(raw(db), name, now(db), row)
    return result


def change(name: str, **changes: Unpack[Options]) -> None:
    """Change a schedule. What the code declares is kept, for `reset()`; a run that is due still comes.

    `changes`: the options to change, each as in SNAPPEA["SCHEDULES"]. Raises LookupError if the schedule does
    not exist, and ConfigurationError, UnknownTask, UnknownQueue or TypeError if the new one is invalid.

    >>> change("mail.tasks.send_digest", cron="0 7 * * *", queue="slow")
    """
    db = _editable()
    with db.wrap_database_errors, transact(db) as below:
        planned = _one(below, name)
        plan = _revised(planned, changes)
        _write(db, below, planned, planned.changed(plan))
    ring_on_commit(db)


def reset(name: str) -> bool:
    """Undo the changes to a schedule in the code. Return whether there were any."""
    db = _editable()
    with db.wrap_database_errors, transact(db) as below:
        planned = _find(below, name)
        is_changed = planned is not None and bool(planned.declared)
        if planned and is_changed:
            _write(db, below, planned, planned.changed(planned.declaration()))
    ring_on_commit(db)
    return is_changed


def add(name: str, task: str | TaskFunction[..., Any], **options: Unpack[Options]) -> None:
    """Add a schedule for a task with the option `schedulable`. It stays until it is removed.

    `options`: `cron` or `every`, and others as in SNAPPEA["SCHEDULES"]. Raises ConfigurationError,
    UnknownTask, UnknownQueue or TypeError if the schedule is invalid, the name is taken, or the task is not
    schedulable.

    >>> add("sunday digest", "mail.tasks.send_digest", cron="0 9 * * sun")
    """
    db = _editable()
    task_name = resolve(task).name if isinstance(task, str) else task.name
    plan = checked({**options, "task": task_name, "name": name}, is_added=True)
    with db.wrap_database_errors, transact(db) as below:
        planned = Planned(plan, next_run(plan, None, now(db)), is_added=True)
        if not planned.write(below, rows.ADD):
            raise ConfigurationError(f"There already is a schedule {name!r}.")
    ring_on_commit(db)


def remove(name: str) -> bool:
    """Remove a schedule that was added. Return whether there was one. Those in the code stay."""
    refuse_event_loop("schedules")
    with connect().wrap_database_errors, transact(connect()) as below:
        planned = _find(below, name)
        if is_added := bool(planned and planned.is_added):
            rows.remove(below, name)
    return is_added


def _revised(planned: Planned, changes: Mapping[str, Any]) -> Plan:
    plan = planned.plan
    if unknown := changes.keys() - Options.__annotations__:
        raise TypeError(f"A schedule has no option {', '.join(sorted(unknown))}.")
    entry: dict[str, Any] = {"name": plan.name, "task": plan.task_name, "queue": plan.queue}
    entry |= {"timezone": plan.timezone, "catch_up": plan.catch_up}
    if not changes.keys() & {"cron", "every"}:
        entry |= as_option(plan.expression)
    if not {"args", "kwargs"} <= changes.keys():
        entry["args"], entry["kwargs"] = plan.arguments()
    return checked({**entry, **changes}, planned.is_added)


def _editable() -> BaseDatabaseWrapper:
    refuse_event_loop("schedules")
    if uses_celery():
        raise ConfigurationError("Celery's beat enqueues the schedules. Change them in the code.")
    discover()
    return connect()


def _find(db: RawConnection, name: str) -> Planned | None:
    row = db.execute(ONE, (name,)).fetchone()
    return Planned.of(row) if row else None


def _one(db: RawConnection, name: str) -> Planned:
    if planned := _find(db, name):
        return planned
    raise LookupError(f"There is no schedule {name!r}.")


def _write(db: BaseDatabaseWrapper, below: RawConnection, before: Planned, new: Planned) -> None:
    moment = now(db)
    is_due = before.next_run is not None and before.next_run <= moment
    following = before.next_run if is_due else next_run(new.plan, before, moment)
    new._replace(next_run=following).write(below)


def runs() -> dict[str, list[tuple[ScheduleRun, str]]]:
    """Return the last runs of each schedule, the oldest first, each with its outcome as it is now."""
    status = Task.objects.filter(pk=OuterRef("task_id")).values("status")
    found: dict[str, list[tuple[ScheduleRun, str]]] = {}
    for run in ScheduleRun.objects.order_by("pk").annotate(status=Subquery(status)):
        gone = Status.SUCCESSFUL.value if run.task_id else ""
        found.setdefault(run.schedule, []).append((run, run.outcome or run.status or gone))
    return found


class Listed(NamedTuple):
    """A schedule, its row if it has one, its next ticks, and what is wrong with it."""

    planned: Planned
    row: Schedule | None
    runs: list[datetime]
    problem: str = ""


def listing(count: int = 3) -> list[Listed]:
    """Return the schedules in the table and in the code, each with its next `count` ticks."""
    discover()
    db = connect()
    moment, known = now(db), {row.name: row for row in Schedule.objects.all()}
    found = []
    for before, new, is_gone in matched(raw(db), rows.EACH):
        plan = new.plan
        problems = (reason(plan.task_name, error) for error in problems_of(plan, new.is_added))
        problem = "no longer in the code" if is_gone else next(problems, "")
        try:
            runs = upcoming(plan, before, moment, count)
        except ConfigurationError:
            runs = []
        found.append(Listed(new, known.get(plan.name), runs, problem))
    return found
