"""Which Foremen serve the queue: at most one on SQLite, any number on PostgreSQL."""

from collections.abc import Sequence

from ..conf import alias
from ..errors import CannotStart
from . import lock
from .database import ADAPTERS, RawConnection, adapter, connect, file_of
from .records import Call, ForemanInfo

#: The marks of `snappea move` in its source and its target, among the calls that leave.
MOVED, MOVING = "moved", "moving"
_MARKS = f"SELECT key, task_name FROM snappea_handover WHERE key IN ('{MOVED}', '{MOVING}')"
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


def moves(db: RawConnection, here: str) -> set[tuple[str, str]]:
    """Return the moves that a database has marks of: where each starts and ends. `here`: its alias."""
    found = db.execute(_MARKS).fetchall()
    return {(here, other) if key == MOVED else (other, here) for key, other in found}


def moves_first(start: str, end: str) -> str:
    """Return the sentence that a queue moves, or has moved, and what to do."""
    return (
        f'the queue moves from {start!r} to {end!r}, or has moved. Set SNAPPEA["DATABASE"] = "{end}". If the '
        f"move has not finished, run: python manage.py snappea move --from {start} --to {end}"
    )


def require_home(db: RawConnection) -> None:
    """Raise CannotStart if the queue moves to or from this database, or has left it."""
    for start, end in moves(db, alias()):
        raise CannotStart(f"The Foreman cannot start: {moves_first(start, end)}")
