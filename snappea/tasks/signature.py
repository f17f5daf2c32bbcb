"""A call that was not made yet, and what options a call may have."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .results import AsyncResult

#: The options of apply_async().
CALL_OPTIONS = (
    *("countdown", "eta", "expires", "priority", "queue", "result_ttl"),
    *("ignore_result", "add_to_parent"),
)


def require_known(options: Iterable[str], name: str) -> None:
    """Raise TypeError for an option that apply_async() does not have. `name`: of the task."""
    for key in options:
        if key not in CALL_OPTIONS:
            from . import foreign  # needed for this error only

            hint = foreign.instead(key, foreign.CALL_OPTIONS, CALL_OPTIONS)
            raise TypeError(f"{name}: apply_async() has no option {key!r}; {hint}")


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
        require_known(options, self.task.name)
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
