"""Fair share: the places of tasks with `fair_by` in the line of their queue and priority.

Places are in the space of ids, and a task without `fair_by` has its id as its place. The first task of a key
that waits goes to the front, level with the first of all, and each further one a place behind the last of its
key. So the keys take turns, and a claim costs the same as without them.
"""

from collections.abc import Iterable

from . import statements as sql
from .database import RawConnection
from .records import Newcomer


def give_turns(db: RawConnection, newcomers: Iterable[Newcomer]) -> None:
    """Give those of the newcomers that have a key their places, and open them unless they have a group."""
    fronts: dict[tuple[object, ...], int | None] = {}
    lasts: dict[tuple[object, ...], int | None] = {}
    turns = []
    for task in newcomers:
        if task.fair_key is None:
            continue
        line = task.is_async, task.queue, task.priority
        group, key = (task.lane, *line), (task.fair_key, *line)
        if group not in fronts:
            fronts[group] = _front(db, task.lane, *line)
        if key not in lasts:
            lasts[key] = _place(db, sql.LAST_OF_KEY, *key)
        turn = task.turn
        if turn is None:
            front, last = fronts[group], lasts[key]
            ahead = [place for place in (front, last and last + 1) if place is not None]
            lasts[key] = turn = max(ahead, default=task.id)
            if front is None:
                fronts[group] = turn
        turns.append((turn, task.id))
    db.executemany(sql.GIVE_TURN, turns)


def _front(db: RawConnection, lane: str | None, is_async: bool, queue: str, priority: int) -> int | None:
    """Return the place of the first task that waits in a line, or in a concurrency group."""
    places = [_place(db, sql.FRONT, is_async, queue, priority)]
    if lane is not None:
        places.append(_place(db, sql.FRONT_OF_GROUP, lane, priority))
    return min((place for place in places if place is not None), default=None)


def _place(db: RawConnection, statement: str, *parameters: object) -> int | None:
    found = db.execute(statement, parameters).fetchone()
    return found[0] if found else None
