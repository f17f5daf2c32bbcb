"""AsyncResult: what became of a call that was enqueued."""

import json
import time
from typing import Any

from django.db.models import QuerySet
from django.db.transaction import TransactionManagementError

from ..conf import collects
from ..errors import ResultNotKept, TaskFailed
from ..models import Status, Task
from ..queue import foremen, store
from ..queue.clock import seconds_of, steady_clock
from ..queue.database import connect, data_version
from ..sync_only import refuse_event_loop
from . import engine, memory_engine

#: How often to look whether a task has ended, in seconds: a look costs microseconds.
LOOK_EVERY = 0.005
#: And where each look is a question to a server.
ASK_EVERY = 0.025


class AsyncResult:
    """A call that was enqueued, or `AsyncResult(id)` for one that somebody else did.

    `id` is the primary key of its row, or with Celery in charge Celery's id, a text; None if it ran at
    once (TASK_ALWAYS_EAGER).
    """

    def __init__(self, id: int | str | None, result: Any = None) -> None:
        self.id: Any = id
        self._result = result  # of a call that ran at once

    def __repr__(self) -> str:
        return f"AsyncResult({self.id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def status(self) -> str | None:
        """Where it stands, one of `snappea.models.Status`.

        None if its row is gone: it succeeded and keeps no result, was cancelled, or has expired.
        """
        if self.id is None:
            return Status.SUCCESSFUL.value
        refuse_event_loop("result")
        if isinstance(self.id, str):
            known = engine.of(self.id).find(self.id)
            return known.status if known else None
        if collects():
            found = memory_engine.find(self.id)
            return found.status if found else None
        return self._rows().values_list("status", flat=True).first()

    def refresh(self) -> Task | None:
        """Return its row as it is now, None if that is gone.

        With Celery in charge there is no row: it is what Celery knows, as one.
        """
        refuse_event_loop("result")
        if isinstance(self.id, str):
            return engine.of(self.id).find(self.id)
        if collects():
            return memory_engine.find(self.id)
        return self._rows().first()

    def get(self, timeout: float | None = None) -> Any:
        """Wait for its end, at most `timeout` seconds, and return its result.

        Raises TimeoutError; TypeError for a timeout that is none; TaskFailed if it failed, was interrupted or
        cancelled; ResultNotKept if its row is gone, or will be when it has succeeded, for want of a
        `result_ttl`.
        """
        if self.id is None:
            return self._result
        refuse_event_loop("result")
        timeout = None if timeout is None else seconds_of(timeout, "timeout")
        if isinstance(self.id, str):
            return engine.of(self.id).wait(self.id, timeout)
        if collects():
            return self._collected_result()
        if connect().in_atomic_block:
            raise TransactionManagementError(
                "get() would wait for ever inside atomic() of the queue's database."
            )
        deadline = None if timeout is None else steady_clock() + timeout
        seen = None
        while True:
            version = data_version(connect())  # whose files may be replaced while it waits
            if version is None or version != seen:
                seen = version
                task = self.refresh()
                if _has_ended(task, self.id):
                    return _result_of(task)
            if deadline is not None and steady_clock() >= deadline:
                why = "" if foremen.is_attended() else f": {foremen.NO_FOREMAN}"
                raise TimeoutError(f"Task #{self.id} has not ended within {timeout:g} s{why}.")
            time.sleep(LOOK_EVERY if version else ASK_EVERY)

    def _collected_result(self) -> Any:
        """Do as get() for a call that is kept in memory, which waits until the test has it run."""
        task = self.refresh()
        if _has_ended(task, self.id):
            return _result_of(task)
        raise TimeoutError(
            f"{task} is kept in memory, because tests run, and waits: call snappea.testing.drain(), or set "
            "TASK_ALWAYS_EAGER."
        )

    def revoke(self, terminate: bool = False) -> bool:
        """Cancel it if it still waits. With `terminate`, raise TaskRevoked inside it if it runs.

        Tells whether there was something to do. A task that runs becomes `cancelled` once it has
        let TaskRevoked pass; one that is blocked outside Python is only reached when it returns.
        """
        refuse_event_loop("result")
        if isinstance(self.id, str):
            return engine.of(self.id).cancel(self.id, terminate)
        if collects():
            return memory_engine.cancel(self.id)
        if store.cancel(self._rows()):
            return True
        return terminate and bool(store.terminate(self._rows()))

    def _rows(self) -> QuerySet[Task]:
        return Task.objects.filter(pk=self.id or 0)


def _has_ended(task: Task | None, task_id: int | None) -> bool:
    """Tell whether a task will not change any more. Raises ResultNotKept if it will leave no result."""
    if task is None:
        raise ResultNotKept(
            f"Nothing is kept of task #{task_id}: it succeeded without a result_ttl, was cancelled, or has "
            "expired."
        )
    if task.status not in (Status.SCHEDULED, Status.READY, Status.RUNNING):
        return True
    if task.result_ttl is None:
        raise ResultNotKept(f"{task.task_name} keeps no result. Declare it with @task(result_ttl=3600).")
    return False


def _result_of(task: Task | None) -> Any:
    assert task is not None
    if task.status != Status.SUCCESSFUL:
        raise TaskFailed(f"{task} is {task.status}.", task.error)
    if task.result is None:
        raise ResultNotKept(f"{task}: {task.error}")
    return json.loads(task.result)
