"""The engine accepts calls and knows their outcome, for `AsyncResult`. Only this file chooses it.

`TableEngine` writes rows for the Foreman, `MemoryEngine` keeps calls while tests run, `EagerEngine` runs them
immediately, and an adapter such as Celery's registers its own.
"""

import logging
import time
from collections.abc import Sequence
from contextvars import ContextVar
from importlib import import_module
from json import loads
from typing import Any, Protocol, TypeAlias, TypeVar

from django.conf import settings
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

from ..conf import collects, current, tests_run
from ..errors import ResultNotKept, TaskFailed
from ..errors import caller as call_site
from ..models import Status, Task
from ..queue import store
from ..queue.clock import steady_clock
from ..queue.database import connect, data_version
from ..queue.records import Call, Claim

logger = logging.getLogger("snappea.tasks")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
#: How often `get()` looks whether a task has ended, in seconds: looking costs microseconds.
LOOK_EVERY = 0.005
#: The same on PostgreSQL, where looking is a query to a server.
ASK_EVERY = 0.025


class Caller(Protocol[R_co]):
    """The maker of a call, such as a TaskFunction. It turns the engine's answer into a result."""

    def accepted(self, call_id: Any, is_new: bool) -> R_co:
        """Return the result of an accepted call. `is_new`: False if an identical unique call waits."""

    def run_eagerly(self, call: Call) -> R_co:
        """Run a call, and return its result."""


class Acceptor(Protocol):
    """What accepts calls: an engine, or a batch."""

    def submit(self, call: Call, caller: Caller[R]) -> R:
        """Accept a call, and return the caller's result for it."""

    def submit_many(self, calls: Sequence[Call], caller: Caller[R]) -> list[R]:
        """Accept many calls."""


#: The option `batch`.
InBatch: TypeAlias = Acceptor | None


class Engine:
    """Accepts calls and knows their outcome. Each engine has its own kind of ids."""

    def submit(
        self, call: Call, caller: Caller[R], moment: str | None = None, is_committed: bool = False
    ) -> R:
        """Accept a call and return the caller's result for it. Raises EnqueueError.

        `moment`: the current time, if known. `is_committed`: the caller's transaction has just committed.
        """
        if settings.DEBUG and not is_committed:
            _warn_of_open_transaction()
        return caller.accepted(*self.enqueue(call, moment))

    def submit_many(self, calls: Sequence[Call], caller: Caller[R]) -> list[R]:
        """Accept many calls. Raises EnqueueError; Celery may have accepted some of them by then."""
        if settings.DEBUG:
            _warn_of_open_transaction()
        return [caller.accepted(call_id, is_new) for call_id, is_new in self.enqueue_many(calls)]

    def submit_on_commit(self, call: Call, caller: Caller[Any], using: str) -> None:
        """Accept a call when a transaction of the database `using` commits."""
        transaction.on_commit(lambda: choose().submit(call, caller, is_committed=True), using=using)

    def submit_batch(self, collector: Any) -> None:
        """Accept the calls of a batch, all or none."""
        raise NotImplementedError(
            "Batches and chains need the queue's table. With Celery as the engine, use its group, chord and "
            "chain."
        )

    def broadcast(self, call: Call, caller: Caller[R]) -> list[R]:
        """Accept a call once for each running Foreman."""
        return [self.submit(call, caller)]

    def enqueue(self, call: Call, moment: str | None = None) -> tuple[Any, bool]:
        """Accept a call; return its id, and whether it is new. Raises EnqueueError."""
        raise NotImplementedError

    def enqueue_many(self, calls: Sequence[Call]) -> Sequence[tuple[Any, bool]]:
        """Accept many calls."""
        raise NotImplementedError

    def find(self, call_id: Any) -> Task | None:
        """Return the row of a call, or an unsaved Task with what is known of it; None if it is unknown."""
        raise NotImplementedError

    def status(self, call_id: Any) -> str | None:
        """Return the status of a call; None if it is unknown."""
        found = self.find(call_id)
        return found.status if found else None

    def wait(self, call_id: Any, timeout: float | None) -> Any:
        """Wait for a call to end, and return its result, as `AsyncResult.get()` does."""
        raise NotImplementedError

    def cancel(self, call_id: Any, terminate: bool) -> bool:
        """Cancel a call, as `AsyncResult.revoke()` does."""
        raise NotImplementedError

    def steps_of(self, claim: Claim) -> str:
        """Return what earlier attempts of a task have kept, as JSON."""
        return ""

    def keep_steps(self, claim: Claim, steps: str) -> None:
        """Keep what an attempt has done for the next one, as JSON. Does nothing if the engine cannot."""

    def trouble(self) -> str:
        """Return why due calls do not run; empty if nothing is wrong."""
        return ""


class TableEngine(Engine):
    """Writes calls to the queue's table, for the Foreman."""

    enqueue = staticmethod(store.enqueue)
    enqueue_many = staticmethod(store.enqueue_many)

    def broadcast(self, call: Call, caller: Caller[R]) -> list[R]:
        """Write a row for each Foreman."""
        from ..queue import foremen

        if not foremen.is_shared():
            return [self.submit(call, caller)]
        return [caller.accepted(task_id, True) for task_id in foremen.enqueue_for_each(call)]

    def submit_batch(self, collector: Any) -> None:
        """Write the rows in one transaction."""
        from ..queue import batches

        if settings.DEBUG:
            _warn_of_open_transaction()
        batches.enqueue(collector.plan)

    def find(self, call_id: Any) -> Task | None:
        """Return the row."""
        return Task.objects.filter(pk=call_id).first()

    def status(self, call_id: Any) -> str | None:
        """Return the row's status."""
        return Task.objects.filter(pk=call_id).values_list("status", flat=True).first()

    def wait(self, call_id: Any, timeout: float | None) -> Any:
        """Read the row again whenever the database has changed."""
        if connect().in_atomic_block:
            raise TransactionManagementError(
                "get() would never return inside atomic() of the queue's database: call it after that block."
            )
        deadline = None if timeout is None else steady_clock() + timeout
        seen = None
        while True:
            version = data_version(connect())  # each time: the files may have been replaced
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

    def steps_of(self, claim: Claim) -> str:
        """Read the row."""
        from ..queue import steps  # a process that only enqueues does not need it

        return steps.steps_of(claim)

    def keep_steps(self, claim: Claim, steps: str) -> None:
        """Commit them to the row."""
        from ..queue.steps import keep_steps

        keep_steps(claim, steps)

    def trouble(self) -> str:
        """Tell if no Foreman runs."""
        from ..queue import foremen

        return "" if foremen.is_attended() else foremen.NO_FOREMAN


class EagerEngine(Engine):
    """Runs each call in the caller (TASK_ALWAYS_EAGER). Such a call has no id."""

    def submit(
        self, call: Call, caller: Caller[R], moment: str | None = None, is_committed: bool = False
    ) -> R:
        """Run a call. Raises what the task raises."""
        return caller.run_eagerly(call)

    def submit_many(self, calls: Sequence[Call], caller: Caller[R]) -> list[R]:
        """Run the calls in order."""
        return [caller.run_eagerly(call) for call in calls]

    def submit_batch(self, collector: Any) -> None:
        """Run the calls in order, and then the callbacks. Raises what a member raises, after on_failure."""
        collector.run_eagerly()

    def find(self, call_id: Any) -> None:
        """Return None: there is no row."""

    def status(self, call_id: Any) -> str:
        """Return that it succeeded: otherwise `delay()` would have raised."""
        return Status.SUCCESSFUL.value

    def cancel(self, call_id: Any, terminate: bool) -> bool:
        """Return False: it has already run."""
        return False


TABLE, EAGER = TableEngine(), EagerEngine()
#: The engines that accept the calls instead of TABLE, by the name in SNAPPEA["ENGINE"].
registered: dict[str, Engine] = {}
#: Collects the calls in the block of a batch.
collecting: ContextVar["Engine | None"] = ContextVar("snappea_batch", default=None)
#: Keeps calls while tests run; loaded when first used.
_memory: Engine | None = None


def register(name: str, engine: Engine) -> None:
    """Make an engine accept the calls while SNAPPEA["ENGINE"] is this name."""
    registered[name] = engine


def choose() -> Engine:
    """Return the engine for the next call. It follows the settings, which tests may change."""
    configured = current()
    if (collector := collecting.get()) is not None:
        return collector
    if configured.TASK_ALWAYS_EAGER:
        return EAGER
    if tests_run() and configured.IN_TESTS == "collect":  # collects(), inlined: the hot path
        return _memory or _load_memory()
    return registered.get(configured.ENGINE, TABLE)


def chosen(batch: InBatch) -> Acceptor:
    """Return what accepts a call with `batch=...`. Raises TypeError if that is an id."""
    if not hasattr(batch, "submit") and batch is not None:
        raise TypeError(f"batch={batch!r} must be a batch, as in batch=Batch(7).")
    return choose() if batch is None else batch


def of(call_id: Any) -> Engine:
    """Return the engine that knows a call. Raises LookupError for Celery's id if Celery is not the engine."""
    if call_id is None:
        return EAGER
    if not isinstance(call_id, str):
        return (_memory or _load_memory()) if collects() else registered.get("snappea", TABLE)
    if found := registered.get(current().ENGINE):
        return found
    raise LookupError(
        f'{call_id!r} is an id of Celery, but Celery is not the engine: set SNAPPEA["ENGINE"] = "celery".'
    )


def _load_memory() -> Engine:
    global _memory
    _memory = import_module("snappea.tasks.memory_engine").MEMORY
    return _memory


def _warn_of_open_transaction() -> None:
    """Warn once per call site that the task may start before the caller's transaction commits."""
    ours = current().DATABASE
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block and connection.alias != ours:
            from ..log import say_once

            message = (
                "%s:%d calls delay() inside an open transaction of %r: the task may start before the commit, "
                "and will run even after a rollback. Use delay_on_commit() to wait for the commit (in "
                "TASKS, ENQUEUE_ON_COMMIT)."
            )
            say_once(logging.WARNING, message, *call_site()[1:], connection.alias, logger=logger)
            return


# results


def require_kept(task: Task | None, task_id: int) -> Task | None:
    """Return a task if it has ended, else None. Raises ResultNotKept if its result is not kept."""
    if task is None:
        raise ResultNotKept(
            f"The row of task #{task_id} is gone: it succeeded without result_ttl, was cancelled, expired, "
            "or was discarded."
        )
    if task.status not in (Status.SCHEDULED, Status.READY, Status.RUNNING):
        return task
    if task.result_ttl is None or not task.keeps_result:
        raise _keeps_none(task)
    return None


def _keeps_none(task: Task) -> ResultNotKept:
    return ResultNotKept(f"{task.task_name} keeps no result. Declare it with @task(result_ttl=3600).")


def result_of(task: Task) -> Any:
    """Return the result of a task that has ended. Raises TaskFailed or ResultNotKept."""
    if task.status != Status.SUCCESSFUL:
        raise TaskFailed(f"{task} is {task.status}.", task.error)
    if task.result is None and not task.keeps_result:
        raise _keeps_none(task)
    if task.result is None:
        raise ResultNotKept(f"{task}: {task.error}")
    return loads(task.result)
