"""The rows of the queue: everything that reads or writes `snappea_task`.

The names are loaded when first used: models are imported from here before they can exist.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .operations import cancel as cancel
    from .operations import delete as delete
    from .operations import pause as pause
    from .operations import paused as paused
    from .operations import requeue as requeue
    from .operations import resume as resume
    from .operations import terminate as terminate
    from .store import depth as depth

_NAMES = {"depth": "store"} | dict.fromkeys(
    ("cancel", "delete", "pause", "paused", "requeue", "resume", "terminate"), "operations"
)
__all__ = [*_NAMES]


def __getattr__(name: str) -> object:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
