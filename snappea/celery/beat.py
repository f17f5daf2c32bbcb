"""The schedules as entries for `celery beat`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from logging import getLogger
from typing import Any

from celery.schedules import BaseSchedule, schedstate, schedule

from ..errors import ConfigurationError
from ..log import clean
from ..queue.clock import as_datetime, now
from ..schedules import MISSED, Plan, plans
from ..schedules.triggers import Every, trigger

logger = getLogger("snappea.celery")
#: When to look again at what is never due any more, in seconds.
SELDOM = 86_400.0


class Ticks(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """The ticks of a schedule, the same as with our own engine: for beat to ask."""

    def __init__(self, expression: str, zone: str, catch_up: bool = True, **more: Any) -> None:
        super().__init__(**more)
        self.expression = expression
        self.zone = zone
        self.catch_up = catch_up
        self._trigger = trigger(expression, zone)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.expression, self.zone, self.catch_up)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ticks) and other.__reduce__() == self.__reduce__()

    def __hash__(self) -> int:
        return hash((self.expression, self.zone, self.catch_up))

    def __repr__(self) -> str:
        return f"<ticks: {self.expression} ({self.zone})>"

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return how long it is until the next tick."""
        return timedelta(seconds=self.is_due(last_run_at).next)

    def is_due(self, last_run_at: datetime) -> Any:
        """Tell whether a tick has come since the last run, and in how many seconds to ask again."""
        here, last = as_datetime(now()).astimezone(UTC), self.maybe_make_aware(last_run_at).astimezone(UTC)
        tick = self._trigger.after(last, last)
        is_due = tick is not None and tick <= here
        if is_due and tick and not self.catch_up:
            is_due = here - self._trigger.latest(here, tick) <= MISSED
        following = self._trigger.after(here, here if is_due else last)
        return schedstate(is_due, (following - here).total_seconds() if following else SELDOM)


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what `beat_schedule` is to have: a name, and the entry."""
    for plan in plans():
        try:
            yield plan.name, _entry(plan)
        except ConfigurationError as error:  # which must not keep others from being enqueued
            logger.error("Schedule %s is left out: %s", clean(plan.name), error)


def _entry(plan: Plan) -> dict[str, Any]:
    return {
        "task": plan.task_name,
        "schedule": _schedule_of(plan),
        "args": tuple(json.loads(plan.args)),
        "kwargs": json.loads(plan.kwargs),
        "options": {} if plan.queue is None else {"queue": plan.queue},
    }


def _schedule_of(plan: Plan) -> BaseSchedule:
    ticks = trigger(plan.expression, plan.timezone)
    if isinstance(ticks, Every) and plan.catch_up:
        return schedule(ticks.interval)  # which every scheduler of Celery's knows
    return Ticks(plan.expression, plan.timezone, plan.catch_up)
