"""AsyncResult, what became of a call, and Signature, a call that was not made yet."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import refuse_event_loop
from ..models import Task
from ..queue.clock import seconds_of
from . import engine


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

    def _engine(self) -> engine.Engine:
        if self.id is not None:
            refuse_event_loop("result")
        return engine.of(self.id)


def require_known(options: Iterable[str], task: Any) -> None:
    """Raise TypeError for an option that the task's apply_async() does not have."""
    known = type(task).apply_async.__kwdefaults__
    for key in options:
        if key not in known:
            from . import foreign  # needed for this error only

            hint = foreign.instead(key, foreign.CALL_OPTIONS, known)
            raise TypeError(f"{task.name}: apply_async() has no option {key!r}; {hint}")


class Signature:
    """A call that was not made yet: `send_mail.s(42).set(countdown=60).delay()`."""

    def __init__(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take the TaskFunction, and its arguments so far."""
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.options: dict[str, Any] = {}

    def set(self, **options: Any) -> "Signature":
        """Set options of `apply_async()`, and return the signature itself. Raises TypeError for another."""
        require_known(options, self.task)
        self.options |= options
        return self

    def delay(self, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Enqueue it, with these arguments before its own."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """Enqueue it, with these arguments before its own and these options over its own."""
        result: AsyncResult = self.task.apply_async(
            (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, **{**self.options, **options}
        )
        return result
