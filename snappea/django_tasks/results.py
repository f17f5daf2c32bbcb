"""Which Task of django.tasks a row is of, and what has become of it: its TaskResult."""

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from inspect import getattr_static
from types import ModuleType
from typing import Any, TypeVar

from django.db import connections

from .. import models
from ..conf import current
from ..errors import TaskInterrupted, TaskRevoked, UnknownTask, UnreadableArguments
from ..models import Status
from ..queue.clock import as_datetime, as_text, now
from ..queue.records import Claim, Outcome
from ..tasks import engine
from ..tasks.arguments import decode
from ..tasks.discovery import import_task_modules, require_imported
from .framework import (
    AnyResult,
    AnyTask,
    BaseTaskBackend,
    InvalidTask,
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultMismatch,
    TaskResultStatus,
)

T = TypeVar("T")

#: Who runs the tasks: the one Foreman of this host's queue.
WORKER = socket.gethostname()[:63]
STATUSES = {
    Status.SCHEDULED: TaskResultStatus.READY,
    Status.READY: TaskResultStatus.READY,
    Status.RUNNING: TaskResultStatus.RUNNING,
    Status.SUCCESSFUL: TaskResultStatus.SUCCESSFUL,
    Status.FAILED: TaskResultStatus.FAILED,
    Status.INTERRUPTED: TaskResultStatus.FAILED,
    Status.CANCELLED: TaskResultStatus.FAILED,
}
MAX_DIGITS = 18  # of a row's primary key
_THEIRS = frozenset(field.name for field in fields(Task))
#: What was restored last, with what from; and how much of that is kept.
_restored: dict[tuple[object, ...], tuple[AnyTask, AnyTask]] = {}
MOST_RESTORED = 1000
_EXCEPTIONS = ("autoretry_for", "dont_autoretry_for")


# which Task a row is of


def declared(name: str) -> AnyTask | None:
    """Return the Task that stands under a name in a module that is loaded, and nothing that is none."""
    found = _loaded(name)
    return found if isinstance(found, Task) else None


def _loaded(path: str) -> Any:
    """Return what stands under a path in a module that is loaded; None if nothing does.

    Runs no code, as a module's `__getattr__` or a property would: the path may come from a row.
    """
    names = path.split(".")
    for count in range(len(names) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(names[:count]))
        if isinstance(found, ModuleType):
            for attribute in names[count:]:
                found = getattr_static(found, attribute, None)
            return found
    return None


def overrides_of(task: AnyTask, original: AnyTask | None) -> str | None:
    """Return what of a task is not as its module says and has no column, as JSON.

    Raises InvalidTask if the Foreman would not find the task there.
    """
    if original is task:
        return None
    if original is None or original.func is not task.func:
        raise InvalidTask(f"{task.module_path} is not this task: the Foreman finds it by its function.")
    found: dict[str, Any] = {} if task.run_after is None else {"run_after": as_text(task.run_after)}
    for name in (field.name for field in fields(task) if field.name not in _THEIRS):
        value = getattr(task, name)
        if value != getattr(original, name, None):
            if name in _EXCEPTIONS and isinstance(value, (tuple, list)):
                found[name] = [f"{kind.__module__}.{kind.__qualname__}" for kind in value]
            elif value is None or isinstance(value, (str, int, float)):
                found[name] = value  # anything else has done its part when the row is written
    return json.dumps(found) if found else None


def restored(name: str, alias: str, queue_name: str, priority: int, overrides: str | None) -> AnyTask | None:
    """Return the Task of a row as it was enqueued. It is not validated: it may be of yesterday."""
    original = declared(name)
    if original is None:
        return None
    key = name, alias, queue_name, priority, overrides
    found = _restored.get(key)
    if found and found[0] is original:
        return found[1]
    if len(_restored) >= MOST_RESTORED:
        _restored.clear()
    made = _restore(original, alias, queue_name, priority, overrides)
    _restored[key] = original, made
    return made


def _restore(original: AnyTask, alias: str, queue_name: str, priority: int, overrides: str | None) -> AnyTask:
    values = {field.name: getattr(original, field.name) for field in fields(original)}
    written = json.loads(overrides) if overrides else {}
    if "run_after" in written:
        written["run_after"] = as_datetime(written["run_after"])
    for key in written.keys() & set(_EXCEPTIONS):
        written[key] = tuple(filter(None, map(_exception, written[key])))
    theirs = {"backend": alias, "queue_name": queue_name, "priority": priority}
    changed = values | theirs | {key: value for key, value in written.items() if key in values}
    if changed == values:
        return original
    made: AnyTask = object.__new__(type(original))
    for key, value in changed.items():
        object.__setattr__(made, key, value)
    return made


def _exception(path: str) -> type[BaseException] | None:
    """Return the exception of a path if it is loaded: a row must not have anything imported."""
    found = _loaded(path)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


# TaskResults


class Result(TaskResult):  # type: ignore[type-arg]  # not subscriptable in each of them
    """A TaskResult that says why there is nothing to return yet."""

    @property
    def return_value(self) -> Any:
        """What the task returned. Raises ValueError if it failed, or has not finished."""
        try:
            return super().return_value
        except ValueError as error:
            if self.is_finished or not (trouble := outside_of_loops(lambda: engine.of(0).trouble())):
                raise
            raise ValueError(f"{error}: {trouble}") from None


def result_of_claim(alias: str, claim: Claim, args: list[Any], kwargs: dict[str, Any]) -> AnyResult:
    """Return the result of a task that runs."""
    origin = claim.extras.origin
    overrides = origin.overrides if origin else None
    began = as_datetime(origin.started_at if origin else now())
    first = as_datetime(origin.first_started_at) if origin and origin.first_started_at else began
    return Result(
        task=_required(restored(claim.task_name, alias, claim.queue, -claim.order, overrides), claim),
        id=str(claim.id),
        status=TaskResultStatus.RUNNING,
        enqueued_at=as_datetime(claim.enqueued_at),
        started_at=first,
        last_attempted_at=began,
        finished_at=None,
        args=args,
        kwargs=kwargs,
        backend=alias,
        errors=_errors(origin.errors) if origin else [],
        worker_ids=[WORKER] * claim.attempts,
    )


def result_of_outcome(alias: str, outcome: Outcome) -> AnyResult:
    """Return the result of a task that has ended."""
    claim = outcome.claim
    result = result_of_claim(alias, claim, *_arguments(claim.args, claim.kwargs))
    finished_at = as_datetime(now())
    if outcome.error:
        result.errors.append(_error(outcome.exception, outcome.reason, outcome.error))
        set_fields(result, status=TaskResultStatus.FAILED, finished_at=finished_at)
    else:
        value = json.loads(outcome.result) if outcome.result else None
        set_fields(result, status=TaskResultStatus.SUCCESSFUL, finished_at=finished_at, _return_value=value)
    return result


def result_of_row(row: models.Task) -> AnyResult:
    """Return the result of a row. Raises TaskResultMismatch if its task is not there."""
    if declared(row.task_name) is None:
        import_task_modules()  # all that the Foreman imports at its start, and not what the row names
        try:
            require_imported(row.task_name)
        except UnknownTask as error:
            raise TaskResultMismatch(str(error)) from error
    task = restored(row.task_name, str(row.backend), row.queue, row.priority, row.overrides)
    args, kwargs = _arguments(row.args, row.kwargs)
    status = STATUSES[Status(row.status)]
    errors = _errors(row.errors)
    if status == TaskResultStatus.FAILED and row.error:
        last = errors.pop().exception_class_path if errors else ""
        errors.append(_error(last, row.error, row.error))
    is_finished = status in (TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL)
    result = Result(
        task=_required(task, row),
        id=str(row.pk),
        status=status,
        enqueued_at=row.enqueued_at,
        started_at=(row.first_started_at or row.started_at) if row.attempts else None,
        last_attempted_at=(row.started_at or row.first_started_at) if row.attempts else None,
        finished_at=row.finished_at if is_finished else None,
        args=args,
        kwargs=kwargs,
        backend=str(row.backend),
        errors=errors,
        worker_ids=[WORKER] * row.attempts,
    )
    if status == TaskResultStatus.SUCCESSFUL and row.result is not None:
        set_fields(result, _return_value=json.loads(row.result))
    return result


def get_result(backend: BaseTaskBackend, result_id: str) -> AnyResult:
    """Return the result of an id. Raises as the backend's method does."""
    text = str(result_id)
    is_id = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and text == str(int(text))
    row = outside_of_loops(lambda: _row(int(text), backend.alias)) if is_id else None
    if row is None:
        raise TaskResultDoesNotExist(result_id)
    return result_of_row(row)


def _row(task_id: int, alias: str) -> models.Task | None:
    row = engine.of(task_id).find(task_id)
    return row if row and row.backend == alias else None


def outside_of_loops(look: Callable[[], T]) -> T:
    """Return what a look finds, from a thread of its own in a coroutine, where the ORM refuses to work."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return look()

    def look_and_close() -> T:
        try:
            return look()
        finally:
            connections[current().DATABASE].close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(look_and_close).result()


def _arguments(args: str, kwargs: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        return decode(args, kwargs)
    except UnreadableArguments:
        return [], {}  # it has failed for that


def _errors(lines: str) -> list[TaskError]:
    found = []
    for line in models.read_errors(lines):
        reason = str(line.get("error", ""))
        found.append(_error(line.get("exception", ""), reason, line.get("traceback") or reason))
    return found


def _error(path: str, reason: str, traceback: str) -> TaskError:
    """Return what went wrong in an attempt. Without a path, nothing was raised in the task."""
    kind = TaskRevoked if reason.startswith(TaskRevoked.__name__) else TaskInterrupted
    return TaskError(
        exception_class_path=path or f"{kind.__module__}.{kind.__qualname__}", traceback=traceback
    )


def _required(task: AnyTask | None, of: Claim | models.Task) -> AnyTask:
    if task is None:
        raise TaskResultMismatch(f"{of.task_name!r} is not a task of django.tasks, or not any more.")
    return task


def set_fields(result: AnyResult, **values: Any) -> None:
    """Change what Django has frozen."""
    for name, value in values.items():
        object.__setattr__(result, name, value)
