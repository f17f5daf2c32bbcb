"""Snappea: a task queue for Django that needs nothing but Django, SQLite and one process.

>>> from snappea import task
>>> @task
... def send_mail(user_id: int) -> None: ...
>>> send_mail.delay(42)

The public names are loaded when first used: INSTALLED_APPS imports this package before any
model can exist.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import SnappeaError as SnappeaError
    from .tasks import AsyncResult as AsyncResult
    from .tasks import TaskFunction as TaskFunction
    from .tasks import task as task

__version__ = "0.1.0"
__all__ = ["AsyncResult", "SnappeaError", "TaskFunction", "task"]

_HOMES = {"AsyncResult": "tasks", "TaskFunction": "tasks", "task": "tasks", "SnappeaError": "errors"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
