"""Periodic tasks: the schedules in the code, their rows, and functions to pause, resume and fire them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from logging import INFO, WARNING
from typing import Any, NamedTuple

from django.conf import settings
from django.db import transaction

from ..conf import current
from ..errors import ConfigurationError, UnknownQueue, UnknownTask, refuse_event_loop
from ..log import clean, say
from ..models import Schedule
from ..queue.clock import as_datetime, as_text, now
from ..queue.database import RawConnection, connect, raw, ring_on_commit, transact
from ..queue.dialects import statement
from ..queue.records import Call
from ..tasks.arguments import encode
from ..tasks.calls import require_queue
from ..tasks.discovery import discover, find, resolve
from ..tasks.engine import AsyncResult
from ..tasks.function import declared
from .triggers import Trigger, interval, trigger

#: If the clock is set back by more, it was wrong before: the next tick is computed again.
ASTRAY = timedelta(days=1)
#: A tick that could not be enqueued for this long is missed: without `catch_up` it is skipped.
MISSED = timedelta(seconds=60)

_COLUMNS = "name, task_name, expression, timezone, args, kwargs, queue, catch_up"
#: Selects the columns of a Planned.
_FIND = f"SELECT {_COLUMNS}, {{untyped}}next_run, {{untyped}}last_run FROM snappea_schedule"
ALL = statement(_FIND)
ONE = statement(f"{_FIND} WHERE name = ?")
DUE = statement(f"""{_FIND}
    WHERE NOT is_paused AND is_paused = {{false}} AND next_run <= ? ORDER BY next_run, id""")
#: Records the last run.
NOTE_RUN = "UPDATE snappea_schedule SET last_run = ?, last_task_id = ?, last_outcome = ? WHERE name = ?"
_WRITE = f"""
    INSERT INTO snappea_schedule ({_COLUMNS}, next_run, last_outcome, is_paused)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?)
    ON CONFLICT (name) DO UPDATE SET task_name = excluded.task_name, expression = excluded.expression,
        timezone = excluded.timezone, args = excluded.args, kwargs = excluded.kwargs,
        queue = excluded.queue, catch_up = excluded.catch_up, next_run = excluded.next_run"""
_REMOVE = "DELETE FROM snappea_schedule WHERE name = ?"
_PAUSE = statement("UPDATE snappea_schedule SET is_paused = {true} WHERE name = ?")
_RESUME = statement("UPDATE snappea_schedule SET is_paused = {false}, next_run = ? WHERE name = ?")


class Plan(NamedTuple):
    """A schedule as the code declares it; also the columns of its row."""

    name: str
    task_name: str
    expression: str
    timezone: str
    args: str = "[]"
    kwargs: str = "{}"
    queue: str | None = None
    catch_up: bool = True

    def trigger(self) -> Trigger:
        """Return the Trigger that computes its ticks. Raises ConfigurationError."""
        return trigger(self.expression, self.timezone)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of its task."""
        return tuple(json.loads(self.args)), json.loads(self.kwargs)

    def call(self) -> Call:
        """Return the call to enqueue. Raises UnknownTask, or the errors of `delay()`."""
        return resolve(self.task_name).call(*self.arguments(), self.queue)


class Planned(NamedTuple):
    """A schedule's row. Its times are text, as in the database."""

    plan: Plan
    next_run: str | None
    last_run: str | None

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> "Planned":
        """Return the Planned of a row from ALL, ONE or DUE."""
        return cls(Plan(*row[:-2])._replace(catch_up=bool(row[-3])), *row[-2:])


def plans() -> Iterator[Plan]:
    """Yield the schedules that the imported tasks and SNAPPEA["SCHEDULES"] declare."""
    for task in declared():
        name, options = task.name, task.options
        if options.cron or options.every:
            expression = options.cron or interval(options.every or 0)
            zone = options.timezone or settings.TIME_ZONE
            yield Plan(name, name, expression, zone, catch_up=options.catch_up)
    for entry in current().SCHEDULES:
        yield Plan(
            name=entry.get("name", entry["task"]),
            task_name=entry["task"],
            expression=entry["cron"] if "cron" in entry else interval(entry["every"]),
            timezone=entry.get("timezone", settings.TIME_ZONE),
            args=encode(tuple(entry.get("args", ())), entry["task"]),
            kwargs=encode(dict(entry.get("kwargs", {})), entry["task"]),
            queue=entry.get("queue"),
            catch_up=entry.get("catch_up", True),
        )


def problems() -> list[tuple[str, Exception]]:
    """Return the errors of the schedules, as pairs of a schedule's name and an error."""
    found: list[tuple[str, Exception]] = []
    seen: set[str] = set()
    try:
        for plan in plans():
            if plan.name in seen:
                message = f'There are two schedules {plan.name!r}: give each a "name" of its own.'
                found.append((plan.name, ConfigurationError(message)))
            seen.add(plan.name)
            found += [(plan.name, problem) for problem in _problems_of(plan)]
    except TypeError as error:  # its arguments are not JSON
        found.append(("SCHEDULES", error))
    return found


def _problems_of(plan: Plan) -> Iterator[Exception]:
    try:
        plan.trigger()
    except ConfigurationError as error:
        yield error
    try:  # not plan.call(), which runs the hooks: they may need a request or a Foreman
        task = resolve(plan.task_name)
        task.require_fit(*plan.arguments())
        require_queue(plan.queue or task.options.queue, plan.task_name)
    except (UnknownTask, UnknownQueue, TypeError) as error:
        yield error


def reason(task_name: str, error: Exception) -> str:
    """Return an error of a schedule as text: only its type if the task is sensitive."""
    task = find(task_name)
    is_hidden = task is not None and task.options.sensitive
    return f"{type(error).__name__} (not shown: the task is sensitive)" if is_hidden else repr(error)


def synchronise(db: RawConnection, moment: str) -> None:
    """Make the rows match the code, in the caller's transaction.

    Raises ConfigurationError if an expression is invalid.
    """
    rows = _rows(db)
    for plan in plans():
        planned = rows.pop(plan.name, None)
        following = _next_run(plan, planned, moment)
        if planned is None or (plan, following) != planned[:2]:
            db.execute(_WRITE, (*plan, following, False))
            say(INFO, "Schedule %s (%s): next at %s.", clean(plan.name), plan.expression, following)
    for name in rows:
        db.execute(_REMOVE, (name,))
        say(WARNING, "Schedule %s is no longer in the code and was removed.", clean(name))


def after(ticks: Trigger, moment: datetime, last: datetime | None) -> str | None:
    """Return the first tick after a moment, as text."""
    tick = ticks.after(moment, last)
    while tick and as_text(tick) <= as_text(moment):  # without USE_TZ one hour occurs twice in autumn
        tick = ticks.after(tick, tick)
    return as_text(tick) if tick else None


def aware(moment: str) -> datetime:
    """Return a time from the database in UTC."""
    return as_datetime(moment).astimezone(UTC)


def _next_run(plan: Plan, planned: Planned | None, moment: str) -> str | None:
    """Return the next tick: that of the row, unless the schedule or the clock was changed."""
    here, ticks = aware(moment), plan.trigger()
    next_run, last_run = (planned.next_run, planned.last_run) if planned else (None, None)
    if last_run and aware(last_run) > here + ASTRAY:
        last_run = None  # the clock was wrong at that time
    before = planned and (planned.plan.expression, planned.plan.timezone)
    if next_run is None or before != (plan.expression, plan.timezone):
        return after(ticks, here, aware(last_run) if last_run else None)
    return next_run if last_run else min(next_run, after(ticks, here, None) or next_run)


def pause(name: str) -> bool:
    """Stop enqueueing a schedule's task. Return whether there is such a schedule.

    >>> pause("mail.tasks.send_digest")
    True
    """
    refuse_event_loop("schedules")
    return bool(raw(connect()).execute(_PAUSE, (name,)).rowcount)


def resume(name: str) -> bool:
    """Resume a schedule with its next run. Runs during the pause are skipped. Return whether it exists."""
    refuse_event_loop("schedules")
    db = connect()
    with transact(db) as below:
        rows = below.execute(ONE, (name,)).fetchall()
        for planned in map(Planned.of, rows):
            moment = now(db)
            is_missed = planned.next_run is None or planned.next_run <= moment
            kept = planned._replace(next_run=None) if is_missed else planned
            following = _next_run(planned.plan, kept, moment)
            below.execute(_RESUME, (following, name))
    ring_on_commit(db)
    return bool(rows)


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
        rows = raw(db).execute(ONE, (name,)).fetchall()
        if not rows:
            raise LookupError(f"There is no schedule {name!r}.")
        plan = Planned.of(rows[0]).plan
        result = resolve(plan.task_name).apply_async(*plan.arguments(), queue=plan.queue)
        row = result.id if isinstance(result.id, int) else None  # Celery's ids are text
        raw(db).execute(NOTE_RUN, (now(db), row, "", name))
    return result


def listing(count: int = 3) -> list[tuple[Plan, Schedule | None, list[datetime]]]:
    """Return each schedule in the code, its row if it has one, and its next `count` ticks."""
    db = connect()
    moment, rows, known = now(db), _rows(raw(db)), {row.name: row for row in Schedule.objects.all()}
    return [
        (plan, known.get(plan.name), list(islice(_runs(plan, rows.get(plan.name), moment), count)))
        for plan in plans()
    ]


def _runs(plan: Plan, planned: Planned | None, moment: str) -> Iterator[datetime]:
    following, ticks = _next_run(plan, planned, moment), plan.trigger()
    while following:
        yield (run := aware(following))
        following = after(ticks, run, run)


def _rows(db: RawConnection) -> dict[str, Planned]:
    return {planned.plan.name: planned for planned in map(Planned.of, db.execute(ALL).fetchall())}
