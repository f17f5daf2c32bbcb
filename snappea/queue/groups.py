"""Concurrency groups: how many of their tasks may be claimed, by the number that run and the rate of starts.

Ready tasks that may not run yet are blocked, so that they cost other tasks nothing. A rate is a bucket that
holds up to `burst` starts and gets another one after each `interval`. The table of openings has the time at
which the bucket of a group is full again.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from . import statements as sql
from .clock import later
from .database import RawConnection, delete_old
from .records import Claim, Discarded
from .states import Status
from .store import note_gone

#: The most tasks of a group that are opened at once.
AT_ONCE = 1000
#: A plain value, as it comes from the database.
READY = Status.READY.value


def admit(db: RawConnection, lane: str, moment: str, queues: Sequence[str] = ()) -> float | None:
    """Open as many tasks of a concurrency group as its limits allow.

    `queues`: only from these; empty: from all. Returns in how many seconds the rate allows the next start,
    None if the rate does not hold a task back.
    """
    served = json.dumps(queues) if queues else None
    found = db.execute(sql.NEXT_IN_GROUP, (lane, served, served)).fetchone()
    if found is None:
        return None
    limit, interval, burst, priority = found
    taken = dict(db.execute(sql.TAKEN, (lane,)).fetchall())
    if READY in taken:
        taken[READY] -= db.execute(sql.YIELD, (lane, priority, served, served)).rowcount
    room, wait = AT_ONCE if limit is None else limit - sum(taken.values()), None
    if interval is not None and interval > 0:
        starts, wait = _starts(db, lane, interval, max(burst or 1, 1), moment)
        room = min(room, starts - taken.get(READY, 0))
    if room > 0:
        db.execute(sql.ADMIT, (lane, served, served, room))
    return wait


def discard(db: RawConnection, ids: Sequence[int], queues: Sequence[str] = ()) -> list[Discarded]:
    """Delete those of these tasks that are blocked and not paused. `queues`: only from these."""
    served = json.dumps(queues) if queues else None
    gone = list(map(Discarded._make, db.execute(sql.DISCARD, (json.dumps(ids), served, served)).fetchall()))
    note_gone(db, gone, "discarded")
    return gone


def _starts(
    db: RawConnection, lane: str, interval: float, burst: int, moment: str
) -> tuple[int, float | None]:
    """Return how many starts the bucket of a rate holds; if it is empty, in how many seconds it gets one."""
    full_at, most = _full_at(db, lane, moment), interval * burst
    seconds = (datetime.fromisoformat(full_at) - datetime.fromisoformat(moment)).total_seconds()
    if seconds > most:  # the clock was set back, or the rate was lower
        seconds = most
        db.execute(sql.CLOSE, (lane, later(moment, most)))
    starts = int(burst - seconds / interval)
    return starts, None if starts else seconds - (most - interval)


def note_starts(db: RawConnection, claims: Iterable[Claim], moment: str) -> set[str]:
    """Take the starts of these tasks out of the buckets of their groups, and return these groups."""
    taken: defaultdict[str, float] = defaultdict(float)
    for claim in claims:
        taken[claim.lane or ""] += claim.extras.lane_interval or 0.0
    for lane, seconds in taken.items():
        db.execute(sql.CLOSE, (lane, later(_full_at(db, lane, moment), seconds)))
    return set(taken)


def _full_at(db: RawConnection, lane: str, moment: str) -> str:
    """Return when the bucket of a group is full; `moment` if it is."""
    found = db.execute(sql.OPENING, (lane,)).fetchone()
    return max(found[0], moment) if found else moment


def recheck(db: RawConnection, lanes: Iterable[str]) -> None:
    """Make a Foreman check these groups."""
    db.executemany(sql.RECHECK, [(lane,) for lane in lanes])


def forget(db: RawConnection, moment: str) -> bool:
    """Delete openings of buckets that have been full for an hour. Return whether there may be more."""
    before = later(moment, -3600)  # the clocks of Foremen may differ
    return delete_old(db, sql.OLD_OPENING, sql.FORGET_OPENINGS, before)
