"""`@task`, and the tasks that it makes.

The names are loaded when first used: projects import this package before models can be loaded.
"""

from typing import TYPE_CHECKING, Any, Protocol

from .. import load_when_used

if TYPE_CHECKING:
    from ..queue.records import Claim, Origin, Outcome
    from .batches import Batch as Batch
    from .batches import batch as batch
    from .calls import Signature as Signature
    from .discovery import discover as discover
    from .discovery import find as find
    from .discovery import task_of as task_of
    from .function import TaskFunction as TaskFunction
    from .function import declared as declared
    from .function import shared_task as shared_task
    from .function import task as task

_NAMES = dict.fromkeys(("TaskFunction", "declared", "shared_task", "task"), "function")
_NAMES |= dict.fromkeys(("discover", "find", "task_of"), "discovery") | {"Signature": "calls"}
_NAMES |= {"Batch": "batches", "batch": "batches"}
__all__ = [*_NAMES]


class Framework(Protocol):
    """Another tasks framework: Snappea can run its tasks."""

    def find(self, name: str) -> "TaskFunction[..., Any] | None":
        """Return the task of a name, if a loaded module declares it."""

    def find_claimed(self, claim: "Claim", origin: "Origin") -> "TaskFunction[..., Any]":
        """Return the task of a claim that the framework enqueued. Raises UnknownTask."""

    def notify_settled(self, outcome: "Outcome", is_urgent: bool = False) -> None:
        """Call the framework's signal receivers, after the outcome of one of its tasks is committed.

        They run in another thread, so that they do not delay the Foreman, or in this one if `is_urgent`.
        """

    def notify_row(self, task_id: int) -> None:
        """Do the same for a row that no worker has reported on, for example after a crash."""

    def close(self) -> None:
        """Wait a few seconds at most until all receivers have been called."""


#: The adapter of django.tasks adds itself when its backend is loaded.
frameworks: list[Framework] = []

__getattr__ = load_when_used(__name__, _NAMES)
