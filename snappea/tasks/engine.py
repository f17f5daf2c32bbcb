"""The engine takes the calls and knows what became of them: `AsyncResult` asks it. Only this file chooses it.

`TableEngine` writes rows for the Foreman, `MemoryEngine` keeps calls while tests run, `EagerEngine` runs them
at once, and an adapter such as Celery's registers its own.
"""

import logging
import time
from collections.abc import Sequence
from importlib import import_module
from json import loads
from typing import Any, Protocol, TypeVar

from django.conf import settings
from django.db import connections
from django.db.transaction import TransactionManagementError

from ..conf import collects, current, tests_run
from ..errors import ResultNotKept, TaskFailed, refuse_event_loop
from ..errors import caller as call_site
from ..models import Status, Task
from ..queue import store
from ..queue.clock import seconds_of, steady_clock
from ..queue.database import connect, data_version
from ..queue.records import Call

logger = logging.getLogger("snappea.tasks")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
#: How often `get()` looks for the end of a task, in seconds: a look costs microseconds.
LOOK_EVERY = 0.005
#: The same where each look is a query to a server.
ASK_EVERY = 0.025


class Caller(Protocol[R_co]):
    """What makes a call, such as a TaskFunction. It turns the engine's answer into a result."""

    def accepted(self, call_id: Any, is_new: bool) -> R_co:
        """Return the result for a call that was taken. `is_new`: False for an identical unique call."""

    def run_eagerly(self, call: Call) -> R_co:
        """Run a call here and now, and return its result."""


class Engine:
    """Takes calls, and knows what became of them. A call's id is of the engine's own kind."""

    def submit(
        self, call: Call, caller: Caller[R], moment: str | None = None, is_committed: bool = False
    ) -> R:
        """Take a call, and return the caller's result for it. Raises EnqueueError.

        `moment`: the time, if it is known. `is_committed`: the caller's transaction has just ended.
        """
        if settings.DEBUG and not is_committed:
            _warn_of_open_transaction()
        return caller.accepted(*self.enqueue(call, moment))

    def submit_many(self, calls: Sequence[Call], caller: Caller[R]) -> list[R]:
        """Take many calls. Raises EnqueueError; Celery's engine may have taken some of them then."""
        if settings.DEBUG:
            _warn_of_open_transaction()
        return [caller.accepted(call_id, is_new) for call_id, is_new in self.enqueue_many(calls)]

    def broadcast(self, call: Call, caller: Caller[R]) -> list[R]:
        """Take a call once for each Foreman at work."""
        return [self.submit(call, caller)]

    def enqueue(self, call: Call, moment: str | None = None) -> tuple[Any, bool]:
        """Take a call; return its id, and whether it is new. Raises EnqueueError."""
        raise NotImplementedError

    def enqueue_many(self, calls: Sequence[Call]) -> Sequence[tuple[Any, bool]]:
        """Take many calls."""
        raise NotImplementedError

    def find(self, call_id: Any) -> Task | None:
        """Return the row of a call, or what is known of it as a row; None if that is nothing."""
        raise NotImplementedError

    def status(self, call_id: Any) -> str | None:
        """Return the status of a call, None if nothing is known of it."""
        found = self.find(call_id)
        return found.status if found else None

    def wait(self, call_id: Any, timeout: float | None) -> Any:
        """Wait for the end of a call and return its result, as `AsyncResult.get()` does."""
        raise NotImplementedError

    def cancel(self, call_id: Any, terminate: bool) -> bool:
        """Cancel a call, as `AsyncResult.revoke()` does."""
        raise NotImplementedError

    def trouble(self) -> str:
        """Return why calls that are due do not run; empty if nothing is wrong."""
        return ""


class TableEngine(Engine):
    """Writes calls into the queue's table, where the Foreman finds them."""

    enqueue = staticmethod(store.enqueue)
    enqueue_many = staticmethod(store.enqueue_many)

    def broadcast(self, call: Call, caller: Caller[R]) -> list[R]:
        """Write a row for each Foreman."""
        from ..queue import foremen

        if not foremen.is_shared():
            return [self.submit(call, caller)]
        return [caller.accepted(task_id, True) for task_id in foremen.enqueue_for_each(call)]

    def find(self, call_id: Any) -> Task | None:
        """Return the row."""
        return Task.objects.filter(pk=call_id).first()

    def status(self, call_id: Any) -> str | None:
        """Read one column only."""
        return Task.objects.filter(pk=call_id).values_list("status", flat=True).first()

    def wait(self, call_id: Any, timeout: float | None) -> Any:
        """Look at the row again whenever the database has changed."""
        if connect().in_atomic_block:
            raise TransactionManagementError(
                "get() would wait for ever inside atomic() of the queue's database."
            )
        deadline = None if timeout is None else steady_clock() + timeout
        seen = None
        while True:
            version = data_version(connect())  # a new look: the files may have been replaced
            if version is None or version != seen:
                seen = version
                if ended := require_kept(self.find(call_id), call_id):
                    return result_of(ended)
            if deadline is not None and steady_clock() >= deadline:
                why = f": {trouble}" if (trouble := self.trouble()) else ""
                raise TimeoutError(f"Task #{call_id} has not ended within {timeout:g} s{why}.")
            time.sleep(LOOK_EVERY if version else ASK_EVERY)

    def cancel(self, call_id: Any, terminate: bool) -> bool:
        """Delete the row if it waits, or mark it if it runs."""
        from ..queue import operations

        row = Task.objects.filter(pk=call_id)
        return bool(operations.cancel(row) or (terminate and operations.terminate(row)))

    def trouble(self) -> str:
        """Return that no Foreman runs, if that is so."""
        from ..queue import foremen

        return "" if foremen.is_attended() else foremen.NO_FOREMAN


class EagerEngine(Engine):
    """Runs each call where it is made (TASK_ALWAYS_EAGER). Such a call has no id."""

    def submit(
        self, call: Call, caller: Caller[R], moment: str | None = None, is_committed: bool = False
    ) -> R:
        """Run a call; raises what it raises."""
        return caller.run_eagerly(call)

    def submit_many(self, calls: Sequence[Call], caller: Caller[R]) -> list[R]:
        """Run one after the other."""
        return [caller.run_eagerly(call) for call in calls]

    def find(self, call_id: Any) -> None:
        """There is no row."""

    def status(self, call_id: Any) -> str:
        """It has returned, or there would be no result to ask."""
        return Status.SUCCESSFUL.value

    def cancel(self, call_id: Any, terminate: bool) -> bool:
        """It is too late for that."""
        return False


TABLE, EAGER = TableEngine(), EagerEngine()
#: What SNAPPEA["ENGINE"] may name beside the table. An adapter registers its own when the app is ready.
_registered: dict[str, Engine] = {}
#: Keeps calls in memory while tests run; loaded when it is first needed.
_memory: Engine | None = None


def register(name: str, engine: Engine) -> None:
    """Let an engine take the calls while SNAPPEA["ENGINE"] has this name."""
    _registered[name] = engine


def choose() -> Engine:
    """Return the engine that takes the next call. It follows the settings, which tests change."""
    configured = current()
    if configured.TASK_ALWAYS_EAGER:
        return EAGER
    if tests_run() and configured.IN_TESTS == "collect":  # collects(), which would cost one more call
        return _memory or _load_memory()
    return _registered.get(configured.ENGINE, TABLE)


def of(call_id: Any) -> Engine:
    """Return the engine that knows a call. Raises LookupError for Celery's id without Celery."""
    if call_id is None:
        return EAGER
    if not isinstance(call_id, str):
        return (_memory or _load_memory()) if collects() else TABLE
    found = _registered.get(current().ENGINE)
    if found is None:
        raise LookupError(
            f"{call_id!r} is Celery's id of a call, but Celery is not the engine "
            '(SNAPPEA["ENGINE"] = "celery").'
        )
    return found


def _load_memory() -> Engine:
    global _memory
    _memory = import_module("snappea.tasks.memory_engine").MEMORY
    return _memory


def _warn_of_open_transaction() -> None:
    """Say once per call site that the task may start before the caller's transaction commits."""
    ours = current().DATABASE
    opened = (
        c.alias for c in connections.all(initialized_only=True) if c.in_atomic_block and c.alias != ours
    )
    if not (alias := next(opened, None)):
        return
    from ..log import say_once

    say_once(
        logging.WARNING,
        "%s:%d calls delay() inside an open transaction of %r: the task may start before the commit, "
        "and will run even after a rollback. delay_on_commit() waits for the commit.",
        *call_site()[1:],
        alias,
        logger=logger,
    )


# what a row says of the end of its task


def require_kept(task: Task | None, task_id: int) -> Task | None:
    """Return a task if it has ended, None if not yet. Raises ResultNotKept if it leaves no result."""
    if task is None:
        raise ResultNotKept(
            f"Nothing is kept of task #{task_id}: it succeeded without a result_ttl, was cancelled, or has "
            "expired."
        )
    if task.status not in (Status.SCHEDULED, Status.READY, Status.RUNNING):
        return task
    if task.result_ttl is None:
        raise ResultNotKept(f"{task.task_name} keeps no result. Declare it with @task(result_ttl=3600).")
    return None


def result_of(task: Task) -> Any:
    """Return the result of a task that has ended. Raises TaskFailed or ResultNotKept."""
    if task.status != Status.SUCCESSFUL:
        raise TaskFailed(f"{task} is {task.status}.", task.error)
    if task.result is None:
        raise ResultNotKept(f"{task}: {task.error}")
    return loads(task.result)


# what a caller holds


class AsyncResult:
    """A call that was enqueued. `AsyncResult(id)` is one that another process enqueued.

    `id` is the primary key of its row; with Celery as the engine it is Celery's id, a string; it is None if
    the call ran at once (TASK_ALWAYS_EAGER).
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
        return self._engine().status(self.id)

    def refresh(self) -> Task | None:
        """Return its row as it is now, None if that is gone.

        With Celery as the engine there is no row: it returns what Celery knows, as one.
        """
        return self._engine().find(self.id)

    def get(self, timeout: float | None = None) -> Any:
        """Wait for its end, at most `timeout` seconds, and return its result.

        Raises TimeoutError; TypeError for an invalid timeout; TaskFailed if it failed, was interrupted or
        cancelled; ResultNotKept if its row is gone, or will be gone once it has succeeded because it has no
        `result_ttl`.
        """
        if self.id is None:
            return self._result
        found = self._engine()
        return found.wait(self.id, None if timeout is None else seconds_of(timeout, "timeout"))

    def revoke(self, terminate: bool = False) -> bool:
        """Cancel it if it still waits. With `terminate`, raise TaskRevoked inside it if it runs.

        Returns whether there was something to do. A running task becomes `cancelled` when TaskRevoked leaves
        it; one that is blocked outside of Python is only reached when it returns.
        """
        return self._engine().cancel(self.id, terminate)

    def _engine(self) -> Engine:
        if self.id is not None:
            refuse_event_loop("result")
        return of(self.id)
