"""The TaskResult of a call, from its claim, its outcome or its row."""

import asyncio
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connections

from .. import models
from ..conf import current
from ..errors import TaskInterrupted, TaskRevoked, UnknownTask, UnreadableArguments
from ..models import Status
from ..queue.clock import as_datetime, now
from ..queue.records import Claim, Outcome
from ..tasks import discovery, engine
from ..tasks.arguments import decode
from .framework import (
    AnyResult,
    AnyTask,
    BaseTaskBackend,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultMismatch,
    TaskResultStatus,
)
from .ids import find_by_number, find_by_uuid, id_of
from .restore import declared, restored, set_fields

T = TypeVar("T")
#: The worker of every attempt: the Foreman of this host.
WORKER = socket.gethostname()[:63]
FAILED, SUCCESSFUL = TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL
#: Any other status is FAILED.
STATUSES = {
    Status.SCHEDULED: TaskResultStatus.READY,
    Status.READY: TaskResultStatus.READY,
    Status.RUNNING: TaskResultStatus.RUNNING,
    Status.SUCCESSFUL: SUCCESSFUL,
}


class Result(TaskResult):  # type: ignore[type-arg]  # not subscriptable in each of them
    """A TaskResult that tells why there is no return value yet."""

    @property
    def return_value(self) -> Any:
        """The task's result. Raises ValueError if it failed or has not finished."""
        try:
            return super().return_value
        except ValueError as error:
            if self.is_finished or not (trouble := outside_of_loops(lambda: engine.of(0).trouble())):
                raise
            raise ValueError(f"{error}: {trouble}") from None


_NOT_STARTED: dict[str, Any] = {
    **dict.fromkeys(("enqueued_at", "started_at", "last_attempted_at", "finished_at")),
    "id": "",
    "status": TaskResultStatus.READY,
}


def new_result(task: AnyTask, args: Any, kwargs: Any, **values: Any) -> AnyResult:
    """Return the result of a call that has not started, apart from `values`."""
    lists: dict[str, Any] = {"errors": [], "worker_ids": []}
    return Result(task=task, args=args, kwargs=kwargs, **{**_NOT_STARTED, **lists, **values})


def result_of_claim(alias: str, claim: Claim, args: list[Any], kwargs: dict[str, Any]) -> AnyResult:
    """Return the result of a running task."""
    origin = claim.extras.origin
    overrides = origin.overrides if origin else None
    began = as_datetime(origin.started_at if origin else now())
    task = restored(claim.task_name, alias, claim.queue, -claim.order, overrides)
    return new_result(
        _required(task, claim.task_name),
        args,
        kwargs,
        id=id_of(alias, claim.id, as_datetime(claim.enqueued_at)),
        backend=alias,
        status=TaskResultStatus.RUNNING,
        enqueued_at=as_datetime(claim.enqueued_at),
        started_at=as_datetime(origin.first_started_at) if origin and origin.first_started_at else began,
        last_attempted_at=began,
        errors=_errors(origin.errors) if origin else [],
        worker_ids=[WORKER] * claim.attempts,
    )


def result_of_outcome(alias: str, outcome: Outcome) -> AnyResult:
    """Return the result of a task that has ended."""
    claim = outcome.claim
    result = result_of_claim(alias, claim, *_arguments(claim.args, claim.kwargs))
    if outcome.error:
        result.errors.append(_error(outcome.exception, outcome.reason, outcome.error))
        return finish(result, status=FAILED)
    return finish(result, status=SUCCESSFUL, _return_value=json.loads(outcome.result or "null"))


def finish(result: AnyResult, **values: Any) -> AnyResult:
    """Set a result's `finished_at` to now, and other values."""
    set_fields(result, finished_at=as_datetime(now()), **values)
    return result


def result_of_row(row: models.Task) -> AnyResult:
    """Return the result of a row. Raises TaskResultMismatch if its task does not exist."""
    if declared(row.task_name) is None:
        discovery.import_task_modules()  # those that the Foreman imports at start, not one that the row names
        try:
            discovery.require_imported(row.task_name)
        except UnknownTask as error:
            raise TaskResultMismatch(str(error)) from error
    task = restored(row.task_name, str(row.backend), row.queue, row.priority, row.overrides)
    status, errors = STATUSES.get(Status(row.status), FAILED), _errors(row.errors)
    if status == FAILED and row.error:
        last = errors.pop().exception_class_path if errors else ""
        errors.append(_error(last, row.error, row.error))
    values: dict[str, Any] = {
        "id": id_of(str(row.backend), row.pk, row.enqueued_at),
        "status": status,
        "errors": errors,
        "backend": str(row.backend),
    }
    if row.attempts:
        values["started_at"] = row.first_started_at or row.started_at
        values["last_attempted_at"] = row.started_at or row.first_started_at
        values["worker_ids"] = [WORKER] * row.attempts
    if status in (FAILED, SUCCESSFUL):
        values["finished_at"] = row.finished_at
    args, kwargs = _arguments(row.args, row.kwargs)
    result = new_result(_required(task, row.task_name), args, kwargs, enqueued_at=row.enqueued_at, **values)
    if status == SUCCESSFUL and row.result is not None:
        set_fields(result, _return_value=json.loads(row.result))
    return result


def get_result(backend: BaseTaskBackend, result_id: str) -> AnyResult:
    """Return the result of an id. Raises as `SnappeaBackend.get_result()` does."""
    find = find_by_uuid if getattr(backend, "uses_uuids", False) else find_by_number
    row = outside_of_loops(lambda: find(str(result_id)))
    if row is None or row.backend != backend.alias:
        raise TaskResultDoesNotExist(result_id)
    return result_of_row(row)


def outside_of_loops(look: Callable[[], T]) -> T:
    """Return the result of `look`; in a coroutine, where the ORM raises, another thread calls it."""
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
        return [], {}  # this is why it failed


def _errors(lines: str) -> list[TaskError]:
    found = []
    for line in models.read_errors(lines):
        reason = str(line.get("error", ""))
        found.append(_error(line.get("exception", ""), reason, line.get("traceback") or reason))
    return found


def _error(path: str, reason: str, traceback: str) -> TaskError:
    """Return the error of an attempt. An empty path: the task itself raised nothing."""
    kind = TaskRevoked if reason.startswith(TaskRevoked.__name__) else TaskInterrupted
    return TaskError(exception_class_path=path or path_of(kind), traceback=traceback)


def path_of(kind: type[BaseException]) -> str:
    """Return the dotted path of an exception."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _required(task: AnyTask | None, name: str) -> AnyTask:
    if task is None:
        raise TaskResultMismatch(f"{name!r} is not a task of django.tasks (any longer).")
    return task
