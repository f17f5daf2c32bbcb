"""Which Foremen serve the queue: at most one on SQLite, any number on PostgreSQL."""

from collections.abc import Sequence

from . import lock
from .database import ADAPTERS, adapter, connect, file_of
from .records import Call, ForemanInfo

NO_FOREMAN = "no Foreman runs; start it: python manage.py runsnappea"


def is_shared() -> bool:
    """Tell whether several Foremen may serve the queue."""
    return connect().vendor in ADAPTERS


def foremen_at_work() -> Sequence[ForemanInfo]:
    """Return the running Foremen: the one that holds the lock, or those with a heartbeat."""
    if is_shared():
        found: Sequence[ForemanInfo] = adapter(connect(), "foremen").foremen_at_work()
        return found
    file = file_of(connect())
    held = lock.holder(file) if file else None
    return [held] if held else []


def is_attended() -> bool:
    """Tell whether a Foreman runs. A queue in memory counts as attended."""
    return bool(foremen_at_work()) or (not is_shared() and file_of(connect()) is None)


def enqueue_for_each(call: Call) -> list[int]:
    """Write one task for each running Foreman, which only that one runs. Return the ids of the rows."""
    numbers = [info.number for info in foremen_at_work()]
    ids: list[int] = adapter(connect(), "foremen").enqueue_for(numbers, call)
    return ids
