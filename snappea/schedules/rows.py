"""The rows of the schedules: their statements, and how the Foreman makes them match the code."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from logging import ERROR, INFO, WARNING
from typing import Any, NamedTuple

from ..errors import ConfigurationError
from ..log import clean, say
from ..queue.clock import as_datetime, as_text
from ..queue.database import RawConnection
from ..queue.dialects import statement
from ..queue.records import Call
from .plans import Plan, plans, problems_of, reason
from .triggers import Trigger

#: If the clock is set back by more, it was wrong before: the next tick is computed again.
ASTRAY = timedelta(days=1)
#: A tick that could not be enqueued for this long is missed: without `catch_up` it is skipped.
MISSED = timedelta(seconds=60)
#: How many runs are kept for each schedule.
RUNS = 30
#: What a user may change of a declared schedule.
_CHANGEABLE = ("expression", "timezone", "args", "kwargs", "queue", "catch_up")

_COLUMNS = ", ".join(Plan._fields)
#: Selects the columns of a Planned.
_FIND = f"""
    SELECT {_COLUMNS}, {{untyped}}next_run, {{untyped}}last_run, declared, {{untyped}}is_added
    FROM snappea_schedule"""
#: Locked until the end of the transaction. The order keeps two transactions from waiting for each other.
ALL = statement(f"{_FIND} ORDER BY next_run, id {{for_update}}")
EACH = statement(f"{_FIND} ORDER BY name")
ONE = statement(f"{_FIND} WHERE name = ? {{for_update}}")
DUE = statement(f"""{_FIND}
    WHERE NOT is_paused AND is_paused = {{false}} AND next_run <= ? ORDER BY next_run, id""")
#: A new row; for the first columns of a Planned.
_INSERT = f"""
    INSERT INTO snappea_schedule ({_COLUMNS}, next_run, declared, is_added, last_outcome, is_paused)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT (name) DO """
ADD = f"{_INSERT} NOTHING"
WRITE = f"""{_INSERT} UPDATE SET task_name = excluded.task_name, expression = excluded.expression,
        timezone = excluded.timezone, args = excluded.args, kwargs = excluded.kwargs,
        queue = excluded.queue, catch_up = excluded.catch_up, next_run = excluded.next_run,
        declared = excluded.declared, is_added = excluded.is_added"""
REMOVE = "DELETE FROM snappea_schedule WHERE name = ?"
FORGET_RUNS = "DELETE FROM snappea_schedulerun WHERE schedule = ?"
_NOTE_LAST = "UPDATE snappea_schedule SET last_run = ?, last_task_id = ?, last_outcome = ? WHERE name = ?"
_ADD_RUN = "INSERT INTO snappea_schedulerun (schedule, at, task_id, outcome) VALUES (?, ?, ?, ?)"
_TRIM_RUNS = f"""
    DELETE FROM snappea_schedulerun WHERE schedule = ? AND id <= (
        SELECT id FROM snappea_schedulerun WHERE schedule = ? ORDER BY id DESC LIMIT 1 OFFSET {RUNS})"""


class Planned(NamedTuple):
    """A schedule's row. Its times are text, as in the database."""

    plan: Plan
    next_run: str | None = None
    last_run: str | None = None
    #: What the code declares, as JSON, if a user has changed it.
    declared: str = ""
    is_added: bool = False

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> "Planned":
        """Return the Planned of a row from ALL, ONE or DUE."""
        *columns, next_run, last_run, declared, is_added = row
        plan = Plan(*columns)._replace(catch_up=bool(columns[-1]))
        return cls(plan, next_run, last_run, declared, bool(is_added))

    def declaration(self) -> Plan:
        """Return the schedule as the code declared it when the row was written."""
        with suppress(ValueError, TypeError):  # the row was changed by hand
            return Plan(**json.loads(self.declared))
        return self.plan

    def over(self, plan: Plan) -> "Planned":
        """Return the row with a new declaration; what a user has changed stays."""
        before, changes = self.declaration(), {}
        for field in _CHANGEABLE if self.declared else ():
            if (value := getattr(self.plan, field)) != getattr(before, field):
                changes[field] = value
        return self._with(plan, plan._replace(**changes))

    def changed(self, plan: Plan) -> "Planned":
        """Return the row with a plan that a user made."""
        return self._replace(plan=plan) if self.is_added else self._with(self.declaration(), plan)

    def _with(self, declared: Plan, plan: Plan) -> "Planned":
        text = json.dumps(declared._asdict()) if plan != declared else ""
        return self._replace(plan=plan, declared=text, is_added=False)

    def call(self) -> Call:
        """Return the call to enqueue. Raises UnknownTask, ConfigurationError, or the errors of `delay()`."""
        return self.plan.task(self.is_added).call(*self.plan.arguments(), self.plan.queue)

    def write(self, db: RawConnection, statement: str = WRITE) -> bool:
        """Write the row, with WRITE or ADD. Return whether it was written."""
        values = (*self.plan, self.next_run, self.declared, self.is_added, False)
        return bool(db.execute(statement, values).rowcount)


class Match(NamedTuple):
    """A schedule's row, if it has one, and as it should be. `is_gone`: it is no longer in the code."""

    before: Planned | None
    new: Planned
    is_gone: bool = False


def matched(db: RawConnection, find: str = ALL) -> list[Match]:
    """Compare the rows with the code."""
    rows = {planned.plan.name: planned for planned in map(Planned.of, db.execute(find).fetchall())}
    found = []
    for plan in plans():
        before = rows.pop(plan.name, None)
        found.append(Match(before, (before or Planned(plan)).over(plan)))
    return found + [Match(before, before, not before.is_added) for before in rows.values()]


def synchronise(db: RawConnection, moment: str) -> None:
    """Make the rows match the code, in the caller's transaction. What users have changed or added stays.

    Raises ConfigurationError if an expression in the code is invalid.
    """
    for before, new, is_gone in matched(db):
        if is_gone:
            remove(db, new.plan.name)
            say(WARNING, "Schedule %s is no longer in the code and was removed.", clean(new.plan.name))
        else:
            _refresh(db, before, new, moment)


def _refresh(db: RawConnection, before: Planned | None, new: Planned, moment: str) -> None:
    plan, is_by_user = new.plan, bool(new.declared or new.is_added)
    name = clean(plan.name)
    if before and before.is_added and not new.is_added:
        say(WARNING, "Schedule %s was added by a user. The code now declares it and replaces it.", name)
    for problem in problems_of(plan, new.is_added) if is_by_user else ():
        say(ERROR, "Schedule %s, as a user wrote it: %s", name, clean(reason(plan.task_name, problem)))
    try:
        new = new._replace(next_run=next_run(plan, before, moment))
    except ConfigurationError:
        if not is_by_user:
            raise
        new = new._replace(next_run=None)
    if new != before:
        new.write(db)
        say(INFO, "Schedule %s (%s): next at %s.", name, plan.expression, new.next_run)


def remove(db: RawConnection, name: str) -> None:
    """Delete a schedule and its runs."""
    db.execute(REMOVE, (name,))
    db.execute(FORGET_RUNS, (name,))


def note_run(db: RawConnection, name: str, at: str, task_id: int | None = None, outcome: str = "") -> None:
    """Record a run, and why it was not enqueued. The last RUNS are kept."""
    db.execute(_ADD_RUN, (name, at, task_id, outcome))
    db.execute(_TRIM_RUNS, (name, name))


def note_last(db: RawConnection, name: str, at: str, task_id: int | None = None, outcome: str = "") -> None:
    """Record a run that is the last one of its schedule."""
    db.execute(_NOTE_LAST, (at, task_id, outcome, name))
    note_run(db, name, at, task_id, outcome)


def after(ticks: Trigger, moment: datetime, last: datetime | None) -> str | None:
    """Return the first tick after a moment, as text."""
    tick = ticks.after(moment, last)
    while tick and as_text(tick) <= as_text(moment):  # without USE_TZ one hour occurs twice in autumn
        tick = ticks.after(tick, tick)
    return as_text(tick) if tick else None


def aware(moment: str) -> datetime:
    """Return a time from the database in UTC."""
    return as_datetime(moment).astimezone(UTC)


def next_run(plan: Plan, planned: Planned | None, moment: str) -> str | None:
    """Return the next tick: that of the row, unless the schedule or the clock was changed."""
    here, ticks = aware(moment), plan.trigger()
    following, last_run = (planned.next_run, planned.last_run) if planned else (None, None)
    if last_run and aware(last_run) > here + ASTRAY:
        last_run = None  # the clock was wrong at that time
    before = planned and (planned.plan.expression, planned.plan.timezone)
    if following is None or before != (plan.expression, plan.timezone):
        return after(ticks, here, aware(last_run) if last_run else None)
    return following if last_run else min(following, after(ticks, here, None) or following)


def upcoming(plan: Plan, planned: Planned | None, moment: str, count: int = 3) -> list[datetime]:
    """Return the next ticks. Raises ConfigurationError."""
    return list(islice(_ticks(plan, next_run(plan, planned, moment)), count))


def _ticks(plan: Plan, following: str | None) -> Iterator[datetime]:
    ticks = plan.trigger()
    while following:
        yield (run := aware(following))
        following = after(ticks, run, run)
