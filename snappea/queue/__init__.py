"""Everything that reads or writes the table `snappea_task`.

Names load on first use, because this package is imported before models can exist.
"""

from typing import TYPE_CHECKING

from .. import load_when_used

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

__getattr__ = load_when_used(__name__, _NAMES)
