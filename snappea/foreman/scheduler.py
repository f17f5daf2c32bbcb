"""Enqueue the tasks of schedules that are due.

One transaction enqueues a tick and advances its schedule's row, so each tick is enqueued exactly once.
"""

from logging import ERROR, WARNING
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..errors import CannotStart, ConfigurationError
from ..log import clean, say
from ..queue import store
from ..queue.clock import as_datetime, as_text
from ..queue.database import RawConnection, transact
from ..queue.dialects import statement
from ..queue.records import Call, Extras
from ..schedules.plans import problems, reason
from ..schedules.rows import (
    ASTRAY,
    DUE,
    MISSED,
    ONE,
    Planned,
    after,
    aware,
    note_last,
    note_run,
    synchronise,
)
from ..signals import task_enqueued, tell
from ..tasks.discovery import find

_MOVE_ON = statement("""
    UPDATE snappea_schedule SET next_run = ?
    WHERE name = ? AND next_run = ? AND NOT is_paused AND is_paused = {false}""")


class Tick(NamedTuple):
    """What to write for a schedule that is due. A tick without a `call` is skipped."""

    planned: Planned
    moment: str
    following: str | None
    call: Call | None = None
    problem: str = ""


class Scheduler:
    """Enqueues the tasks of schedules that are due."""

    def __init__(self) -> None:
        self._ticks: list[Tick] = []
        self._enqueued: list[tuple[str, int]] = []
        self._seen = ""

    def open(self, db: RawConnection, moment: str) -> None:
        """Update the rows from the code, in a transaction. Raises CannotStart for an invalid schedule."""
        for name, problem in problems():
            raise CannotStart(f"Schedule {name}: {problem}")
        synchronise(db, moment)
        self._seen = moment

    def look(self, connection: BaseDatabaseWrapper, moment: str) -> None:
        """Plan the schedules again if the clock was set back so far that it must have been wrong."""
        if as_datetime(moment) < as_datetime(self._seen) - ASTRAY:
            say(WARNING, "The clock was set back from %s: schedules are planned again.", self._seen)
            with transact(connection) as db:
                synchronise(db, moment)
        self._seen = moment

    def prepare(self, db: RawConnection, moment: str) -> None:
        """Find what is due: outside the transaction, because this may call the project's code."""
        self._ticks = [_tick(Planned.of(row), moment) for row in db.execute(DUE, (moment,)).fetchall()]

    def fire(self, db: RawConnection, moment: str) -> None:
        """Enqueue what prepare() found, and advance the schedules, in a transaction."""
        self._enqueued = []
        for tick in self._ticks:
            plan = tick.planned.plan
            if tick.planned not in map(Planned.of, db.execute(ONE, (plan.name,)).fetchall()):
                continue  # it has changed since
            if not db.execute(_MOVE_ON, (tick.following, plan.name, tick.planned.next_run)).rowcount:
                continue  # another Foreman was faster, or it is paused
            if tick.call:
                task_id, is_new = store.insert(db, tick.call, moment)
                note_last(db, plan.name, tick.moment, task_id)
                if is_new:
                    self._enqueued.append((plan.task_name, task_id))
            elif tick.problem:
                note_last(db, plan.name, tick.moment, outcome=tick.problem)
            else:
                note_run(db, plan.name, tick.moment, outcome="skipped")

    def report(self) -> bool:
        """Log what was committed, and send the signals. Return whether anything was due."""
        was_due = bool(self._ticks)
        for tick in self._ticks:
            name = clean(tick.planned.plan.name)
            if tick.problem:
                say(ERROR, "Schedule %s: %s", name, tick.problem)
            elif not tick.call:
                said = "Schedule %s: the missed run at %s is skipped, because catch_up is off."
                say(WARNING, said, name, tick.moment)
        for task_name, task_id in self._enqueued if task_enqueued.receivers else ():
            tell(task_enqueued, find(task_name), id=task_id)
        self._ticks, self._enqueued = [], []
        return was_due


def _tick(planned: Planned, moment: str) -> Tick:
    """Return what to write for a schedule that is due: one tick, even if several were missed."""
    plan, here = planned.plan, aware(moment)
    try:
        ticks = plan.trigger()
    except ConfigurationError as error:  # the row was changed by hand
        return Tick(planned, moment, None, problem=str(error))
    latest = ticks.latest(here, aware(planned.next_run or moment))
    if not plan.catch_up and here - latest > MISSED:
        return Tick(planned, as_text(latest), after(ticks, here, latest))
    latest = ticks.counted(here, latest)
    following = after(ticks, here, latest)
    try:
        call = planned.call()
    except Exception as error:  # raised by the project's code
        problem = f"not enqueued: {reason(plan.task_name, error)}"
        return Tick(planned, as_text(latest), following, problem=problem)
    extras = (call.extras or Extras())._replace(run_after=as_text(latest))
    return Tick(planned, as_text(latest), following, call._replace(extras=extras))
