"""Tasks of django.tasks, and a backend of theirs that is derived from ours."""

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from django import VERSION
from django.conf import settings
from django.dispatch import receiver
from django.utils.module_loading import import_string

from snappea import current_task
from snappea.django_tasks.backend import SnappeaBackend
from snappea.django_tasks.framework import TaskContext, TaskResultDoesNotExist, task_finished, task_started

from .ledger import note

if TYPE_CHECKING:
    from django.tasks import task
else:
    task = import_string(f"{settings.FRAMEWORK}.task")


class ShortBackend(SnappeaBackend):
    """To be the sender of signals."""


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task(priority=7, queue_name="mail")
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


@task
async def add_slowly(a: int, b: int) -> int:
    await asyncio.sleep(0.01)
    return a + b


@task(takes_context=True)
def tell_context(context: "TaskContext[..., Any]", *args: Any) -> list[Any]:
    result = context.task_result
    note("context", result.id, context.attempt, result.status, len(result.errors))
    return [result.id, context.attempt, result.args, result.backend, result.task.name]


@task(takes_context=True)
async def tell_context_slowly(context: "TaskContext[..., Any]") -> list[Any]:
    return [context.task_result.id, context.attempt]


@task
def fail(message: str) -> None:
    raise ValueError(message)


@task
def fail_once(path: str) -> str:
    """Fail the first time: as long as there is no such file."""
    if not os.path.exists(path):
        with open(path, "w"):
            raise ConnectionError("the first time")
    return "the second time"


@task
def return_a_set() -> Any:
    return {1}


@task
def return_a_tuple() -> Any:
    return (1, (2, 3), b"bytes")


@task
def sleep(seconds: float) -> None:
    note("sleeps", current_task.id)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)


@task(backend="other")
def for_others() -> str:
    return "run by ours"


@task(backend="short")
def fail_with_key(key: str) -> None:
    raise KeyError(key)


if (6, 0) <= VERSION < (6, 1):
    flaky = None  # there the decorator takes no options
else:

    @task(autoretry_for=[KeyError], max_retries=2, default_retry_delay=0)  # type: ignore[call-overload,untyped-decorator]
    def flaky() -> None:
        raise KeyError


def plain() -> None:
    """Be no task."""


@receiver([task_started, task_finished])
def write_down(sender: type, signal: Any, task_result: Any, **kwargs: Any) -> None:
    """Note what is told, and what the row says by then; and raise."""
    name = "started" if signal is task_started else "finished"
    try:
        stored = task_result.task.get_backend().get_result(task_result.id).status
    except TaskResultDoesNotExist:
        stored = "gone"
    raised = type(sys.exc_info()[1]).__name__
    note(name, sender.__name__, task_result.id, task_result.status, stored, raised)
    raise RuntimeError("a receiver that raises")
