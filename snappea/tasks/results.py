"""What `delay()` returns: the handle of a call."""

from typing import Any

from ..errors import refuse_event_loop
from ..models import Task
from ..queue.clock import seconds_of
from .engine import Engine, of


class AsyncResult:
    """An enqueued call. Use `AsyncResult(id)` for one that another process enqueued.

    `id` is the primary key of its row; with Celery as the engine, Celery's id (a string); None if the call
    ran immediately (TASK_ALWAYS_EAGER).
    """

    def __init__(self, id: int | str | None, result: Any = None) -> None:
        self.id: Any = id
        self._result = result  # of a call that ran immediately

    def __repr__(self) -> str:
        return f"AsyncResult({self.id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def status(self) -> str | None:
        """Its state, one of `snappea.models.Status`.

        None if its row is gone: it succeeded without `result_ttl`, was cancelled, expired, or was discarded.
        """
        return self._engine().status(self.id)

    def refresh(self) -> Task | None:
        """Return its current row, or None if the row is gone.

        With Celery as the engine, return an unsaved Task with what Celery knows.
        """
        return self._engine().find(self.id)

    def get(self, timeout: float | None = None) -> Any:
        """Wait at most `timeout` seconds for it to end, and return its result. None: wait without a limit.

        Raises TimeoutError; TypeError for an invalid timeout; TaskFailed if it failed, was interrupted or
        cancelled; ResultNotKept if it has no `result_ttl` or its row is gone; TransactionManagementError
        inside `atomic()` of the queue's database.

        >>> add.delay(1, 2).get(timeout=5)
        3
        """
        if self.id is None:
            return self._result
        found = self._engine()
        return found.wait(self.id, None if timeout is None else seconds_of(timeout, "timeout"))

    def revoke(self, terminate: bool = False) -> bool:
        """Cancel it if it has not started. With `terminate`, raise TaskRevoked in it if it runs.

        Returns False if there was nothing to cancel. A running task becomes `cancelled` (Cancelled) when it
        ends with TaskRevoked. While the task is blocked outside Python, the exception cannot reach it.
        """
        return self._engine().cancel(self.id, terminate)

    def _engine(self) -> Engine:
        if self.id is not None:
            refuse_event_loop("result")
        return of(self.id)
