"""Who takes the calls: our own queue, or what was put in its place when the app became ready.

`engine.enqueue` is found as `queue.enqueue` would be, so that the choice costs no call anything.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from ..errors import ExtraMissing
from ..models import Task
from ..queue import store
from ..queue.records import Call


class Engine(Protocol):
    """What takes calls in the place of the queue, and tells what became of them. Its ids are text."""

    def enqueue(self, call: Call, moment: str | None = None) -> tuple[Any, bool]:
        """Take a call; return its id, and whether it is new. Raises EnqueueError."""

    def enqueue_many(self, calls: Sequence[Call]) -> Sequence[tuple[Any, bool]]:
        """Take many. Raises EnqueueError; it may have taken some of them then."""

    def find(self, call_id: str) -> Task | None:
        """Return what is known of a call, as a row that is in no database; None if that is nothing."""

    def wait(self, call_id: str, timeout: float | None) -> Any:
        """Wait for the end of a call, and return its result, as `AsyncResult.get()` does."""

    def cancel(self, call_id: str, terminate: bool) -> bool:
        """Have a call not run, or ended, as `AsyncResult.revoke()` does."""


class MissingCelery:
    """In the place of Celery where that is not installed: it refuses everything."""

    def _refuse(self, *args: object) -> Any:
        raise ExtraMissing('SNAPPEA["ENGINE"] = "celery" needs Celery', "celery")

    enqueue = enqueue_many = find = wait = cancel = _refuse


enqueue = store.enqueue
enqueue_many = store.enqueue_many
#: Who is in the place of the queue; None: nobody.
other: Engine | None = None


def use(instead: Engine) -> None:
    """Let another engine take the calls from now on."""
    global enqueue, enqueue_many, other
    enqueue, enqueue_many, other = instead.enqueue, instead.enqueue_many, instead  # type: ignore[assignment]  # methods


def of(call_id: str) -> Engine:
    """Return who knows of a call whose id is text. Raises LookupError if nobody does."""
    if other is None:
        raise LookupError(
            f"{call_id!r} is Celery's id of a call, but Celery is not in charge "
            '(SNAPPEA["ENGINE"] = "celery").'
        )
    return other
