"""`@task`, and the tasks that it made.

The names are loaded when first used: models are imported from here before they can exist.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .registry import Signature as Signature
    from .registry import TaskFunction as TaskFunction
    from .registry import declared as declared
    from .registry import discover as discover
    from .registry import find as find
    from .registry import shared_task as shared_task
    from .registry import task as task
    from .registry import task_of as task_of

_NAMES = ("Signature", "TaskFunction", "declared", "discover", "find", "shared_task", "task", "task_of")
__all__ = [*_NAMES]


def __getattr__(name: str) -> object:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.registry"), name)
