"""Values that all requests of this process share for a moment, so that many viewers cost what one does."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Value = TypeVar("Value")

#: How long a value is shared, in seconds.
SECONDS = 1.0

_lock = threading.Lock()
_entries: dict[Hashable, "_Entry"] = {}


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Any = None
        self.until = 0.0


def shared(key: Hashable, build: Callable[[], Value], is_fresh: bool = False) -> Value:
    """Return what `build` returned for this key within the last second, or call it.

    Other threads wait while one builds. `is_fresh`: build it even so. Errors are raised and not kept.

    >>> shared("counts", inspect.counts)
    """
    here = time.monotonic()
    with _lock:
        for old in [key for key, entry in _entries.items() if 0 < entry.until < here]:
            del _entries[old]
        entry = _entries.setdefault(key, _Entry())
    with entry.lock:
        if is_fresh or time.monotonic() >= entry.until:
            entry.value = build()
            entry.until = time.monotonic() + SECONDS
        value: Value = entry.value
        return value


def forget() -> None:
    """Build everything again."""
    with _lock:
        _entries.clear()
