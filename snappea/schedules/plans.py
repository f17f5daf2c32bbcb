"""What the code declares: the option `cron` or `every` of @task, and SNAPPEA["SCHEDULES"]."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django.conf import settings

from ..conf import current, schedule_fault
from ..errors import ConfigurationError, UnknownQueue, UnknownTask
from ..tasks.arguments import encode
from ..tasks.calls import require_queue
from ..tasks.discovery import find, resolve
from ..tasks.function import TaskFunction, declared
from .triggers import Trigger, interval, trigger


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

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Plan":
        """Return the Plan of an entry of SCHEDULES. Raises UnserializableArgument."""
        return cls(
            name=entry.get("name", entry["task"]),
            task_name=entry["task"],
            expression=entry["cron"] if "cron" in entry else interval(entry["every"]),
            timezone=entry.get("timezone", settings.TIME_ZONE),
            args=encode(tuple(entry.get("args", ())), entry["task"]),
            kwargs=encode(dict(entry.get("kwargs", {})), entry["task"]),
            queue=entry.get("queue"),
            catch_up=entry.get("catch_up", True),
        )

    def trigger(self) -> Trigger:
        """Return the Trigger that computes its ticks. Raises ConfigurationError."""
        return trigger(self.expression, self.timezone)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of its task."""
        return tuple(json.loads(self.args)), json.loads(self.kwargs)

    def task(self, is_added: bool = False) -> TaskFunction[..., Any]:
        """Return its task. Raises UnknownTask, or ConfigurationError if users may not schedule it."""
        task = resolve(self.task_name)
        if is_added and not task.options.schedulable:
            raise ConfigurationError(
                f"{self.task_name} cannot be scheduled at run time. To allow it, use @task(schedulable=True)."
            )
        return task


def plans() -> Iterator[Plan]:
    """Yield the schedules that the imported tasks and SNAPPEA["SCHEDULES"] declare."""
    for task in declared():
        name, options = task.name, task.options
        if options.cron or options.every:
            expression = options.cron or interval(options.every or 0)
            zone = options.timezone or settings.TIME_ZONE
            yield Plan(name, name, expression, zone, catch_up=options.catch_up)
    yield from map(Plan.of, current().SCHEDULES)


def checked(entry: Mapping[str, Any], is_added: bool) -> Plan:
    """Return the Plan of an entry as in SCHEDULES that a user wrote. Raises the first of its problems."""
    if fault := schedule_fault(entry):
        raise ConfigurationError(f"Schedule {entry.get('name')!r} {fault}.")
    plan = Plan.of(entry)
    for problem in problems_of(plan, is_added):
        raise problem
    return plan


def problems() -> list[tuple[str, Exception]]:
    """Return the errors of the schedules in the code, as pairs of a schedule's name and an error."""
    found: list[tuple[str, Exception]] = []
    seen: set[str] = set()
    try:
        for plan in plans():
            if plan.name in seen:
                message = f'There are two schedules {plan.name!r}: give each a "name" of its own.'
                found.append((plan.name, ConfigurationError(message)))
            seen.add(plan.name)
            found += [(plan.name, problem) for problem in problems_of(plan)]
    except TypeError as error:  # its arguments are not JSON
        found.append(("SCHEDULES", error))
    return found


def problems_of(plan: Plan, is_added: bool = False) -> Iterator[Exception]:
    """Yield the errors of a schedule."""
    try:
        plan.trigger()
    except ConfigurationError as error:
        yield error
    try:  # not call(), which runs the hooks: they may need a request or a Foreman
        task = plan.task(is_added)
        task.require_fit(*plan.arguments())
        require_queue(plan.queue or task.options.queue, plan.task_name)
    except (ConfigurationError, UnknownTask, UnknownQueue, TypeError, ValueError) as error:
        yield error


def reason(task_name: str, error: Exception) -> str:
    """Return an error of a schedule as text: only its type if the task is sensitive."""
    task = find(task_name)
    is_hidden = task is not None and task.options.sensitive
    return f"{type(error).__name__} (not shown: the task is sensitive)" if is_hidden else repr(error)
