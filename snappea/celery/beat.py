"""The schedules as entries of `celery beat`."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from logging import getLogger
from typing import Any

from celery.schedules import BaseSchedule, schedstate, schedule

from ..errors import ConfigurationError
from ..log import clean
from ..queue.clock import as_datetime, now
from ..schedules.plans import plans
from ..schedules.rows import MISSED
from ..schedules.triggers import Every, trigger

logger = getLogger("snappea.celery")
#: When to ask again about a schedule that has no next tick, in seconds.
SELDOM = 86_400.0


class Ticks(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """A schedule with the same ticks as with the Foreman."""

    def __init__(self, expression: str, zone: str, catch_up: bool = True, **more: Any) -> None:
        super().__init__(**more)
        self.written = expression, zone, catch_up
        self._trigger = trigger(expression, zone)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.written

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ticks) and other.written == self.written

    def __hash__(self) -> int:
        return hash(self.written)

    def __repr__(self) -> str:
        return "<ticks: {} ({})>".format(*self.written)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the next run."""
        return timedelta(seconds=self.is_due(last_run_at).next)

    def is_due(self, last_run_at: datetime) -> Any:
        """Return whether a run is due, and in how many seconds to ask again."""
        here, last = as_datetime(now()).astimezone(UTC), self.maybe_make_aware(last_run_at).astimezone(UTC)
        tick = self._trigger.after(last, last)
        is_due = tick is not None and tick <= here
        catch_up = self.written[2]
        if is_due and tick and not catch_up:
            is_due = here - self._trigger.latest(here, tick) <= MISSED
        following = self._trigger.after(here, here if is_due else last)
        return schedstate(is_due, (following - here).total_seconds() if following else SELDOM)


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries for `beat_schedule`, with their names."""
    for plan in plans():
        try:
            ticks = plan.trigger()
        except ConfigurationError as error:  # it must not stop the other schedules
            logger.error("Schedule %s is left out: %s", clean(plan.name), error)
            continue
        due: BaseSchedule = Ticks(plan.expression, plan.timezone, plan.catch_up)
        if isinstance(ticks, Every) and plan.catch_up:
            due = schedule(ticks.interval)  # every scheduler of Celery supports it
        args, kwargs = plan.arguments()
        options = {} if plan.queue is None else {"queue": plan.queue}
        yield (
            plan.name,
            {"task": plan.task_name, "schedule": due, "args": args, "kwargs": kwargs, "options": options},
        )
