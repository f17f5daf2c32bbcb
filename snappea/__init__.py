"""Snappea: a task queue for Django that needs nothing but Django, SQLite and one process.

>>> from snappea import task
>>> @task
... def send_mail(user_id: int) -> None: ...
>>> send_mail.delay(42)

The public names load on first use, because INSTALLED_APPS imports this package before models can exist.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import Retry as Retry
    from .errors import SnappeaError as SnappeaError
    from .errors import SoftTimeLimitExceeded as SoftTimeLimitExceeded
    from .errors import TaskRevoked as TaskRevoked
    from .tasks.batches import Batch as Batch
    from .tasks.batches import batch as batch
    from .tasks.calls import Signature as Signature
    from .tasks.context import current_task as current_task
    from .tasks.function import TaskFunction as TaskFunction
    from .tasks.function import shared_task as shared_task
    from .tasks.function import task as task
    from .tasks.results import AsyncResult as AsyncResult
    from .tasks.steps import astep as astep
    from .tasks.steps import cursor as cursor
    from .tasks.steps import step as step

__version__ = "0.7.0.dev0"

_HOMES = {
    "AsyncResult": "results",
    "Batch": "tasks",
    "Retry": "errors",
    "Signature": "tasks",
    "SnappeaError": "errors",
    "SoftTimeLimitExceeded": "errors",
    "TaskFunction": "tasks",
    "TaskRevoked": "errors",
    "astep": "context",
    "batch": "tasks",
    "current_task": "context",
    "cursor": "context",
    "shared_task": "tasks",
    "step": "context",
    "task": "tasks",
}
__all__ = [*_HOMES]


def load_when_used(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return a `__getattr__` for a package; `homes`: the module of each public name."""

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return load


__getattr__ = load_when_used(__name__, _HOMES)
