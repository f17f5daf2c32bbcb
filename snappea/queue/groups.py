"""Concurrency groups: how many of their tasks may be claimed, by the number that run and the rate of starts.

Ready tasks that may not run yet are blocked, so that they cost other tasks nothing. A rate is a bucket that
holds up to `burst` starts and gets another one after each `interval`. The table of openings has the time at
which the bucket of a group is full again.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from . import statements as sql
from .clock import later
from .database import RawConnection, delete_old
from .records import Claim, Discarded, Newcomer
from .states import Status
from .store import note_gone

#: The most tasks that are blocked at once, and the most of a group that are opened at once.
AT_ONCE = 1000
#: A plain value, as it comes from the database.
READY = Status.READY.value


class Limits(NamedTuple):
    """Limits of a group; None: no limit or, where they were changed at run time, the one before."""

    #: How many tasks may run at a time.
    limit: int | None = None
    #: The seconds between two starts, and how many may start at once.
    interval: float | None = None
    burst: int | None = None


class Room(NamedTuple):
    """How many more tasks of a group may be opened."""

    #: How many are open, but not claimed yet.
    ready: int
    #: How many more its limit and its rate allow; negative after a change of the limits.
    places: int
    starts: int
    #: In how many seconds the rate allows the next start; not positive: now.
    wait: float = 0.0
    #: In how many seconds the bucket is to be full, if the table of openings says that it is later.
    overdraft: float = 0.0


def changed(db: RawConnection) -> dict[str, Limits]:
    """Return the limits that were changed at run time, by the name of a task or by group."""
    return {lane: Limits(*limits) for lane, *limits in db.execute(sql.LIMITS).fetchall()}


def in_force(own: Limits, lane: str, task_name: str, changes: Mapping[str, Limits]) -> Limits:
    """Return the limits that apply to a task. `own`: those that were written with it."""
    for new in (changes.get(task_name), changes.get(lane)):
        if new is not None:
            rate = own if new.interval is None else new
            own = Limits(own.limit if new.limit is None else new.limit, rate.interval, rate.burst)
    return own


def block_new(db: RawConnection) -> list[Newcomer]:
    """Give new tasks their turn, and block them until their concurrency group has room.

    AT_ONCE of them; if there are more, also the first ones of each other key.
    """
    found = db.execute(sql.BLOCK_NEW, ("", AT_ONCE)).fetchall()
    if len(found) == AT_ONCE:
        seen = {fair_key or "" for _id, _lane, fair_key, *_line in found}
        others = [key for (key,) in db.execute(sql.NEW_KEYS, (AT_ONCE,)).fetchall() if key not in seen]
        for key in others:
            found += db.execute(sql.BLOCK_NEW, (key, -(-AT_ONCE // len(others)))).fetchall()
    newcomers = sorted(map(Newcomer._make, found))
    if any(task.fair_key is not None for task in newcomers):
        from . import fair  # rarely needed

        fair.give_turns(db, newcomers)
    return newcomers


def admit(
    db: RawConnection, lane: str, moment: str, changes: Mapping[str, Limits], queues: Sequence[str] = ()
) -> float | None:
    """Open as many tasks of a concurrency group as its limits allow.

    `changes`: see `changed()`. `queues`: only from these; empty: from all. Returns in how many seconds the
    rate allows the next start, None if the rate does not hold a task back.
    """
    served = json.dumps(queues) if queues else None
    found = db.execute(sql.NEXT_IN_GROUP, (lane, served, served)).fetchone()
    if found is None:
        return None
    task_name, priority, *own = found
    room = room_in(db, lane, moment, in_force(Limits(*own), lane, task_name, changes))
    if room.overdraft:
        db.execute(sql.CLOSE, (lane, later(moment, room.overdraft)))
    count = min(room.places, room.starts)
    if room.ready:
        count += db.execute(sql.YIELD, (lane, priority, served, served)).rowcount
    if count > 0:
        db.execute(sql.ADMIT, (lane, served, served, count))
    return room.wait if room.wait > 0 else None


def room_in(db: RawConnection, lane: str, moment: str, limits: Limits) -> Room:
    """Return how many tasks of a group its limits leave room for. It only reads."""
    taken = dict(db.execute(sql.TAKEN, (lane,)).fetchall())
    ready = taken.get(READY, 0)
    places = AT_ONCE if limits.limit is None else limits.limit - sum(taken.values())
    if limits.interval is None or limits.interval <= 0:
        return Room(ready, places, AT_ONCE)
    interval, burst = limits.interval, max(limits.burst or 1, 1)
    full_at, most = _full_at(db, lane, moment), interval * burst
    seconds = (datetime.fromisoformat(full_at) - datetime.fromisoformat(moment)).total_seconds()
    # more than an empty bucket: the clock was set back, or the rate was lower
    overdraft, seconds = most if seconds > most else 0.0, min(seconds, most)
    wait = seconds - (most - interval)
    starts = 0 if wait > 0 else max(1, int(burst - seconds / interval))
    return Room(ready, places, starts - ready, wait, overdraft)


def discard(db: RawConnection, ids: Sequence[int], queues: Sequence[str] = ()) -> list[Discarded]:
    """Delete those of these tasks that are blocked and not paused. `queues`: only from these."""
    served = json.dumps(queues) if queues else None
    gone = list(map(Discarded._make, db.execute(sql.DISCARD, (json.dumps(ids), served, served)).fetchall()))
    note_gone(db, gone, "discarded")
    return gone


def note_starts(
    db: RawConnection, claims: Iterable[Claim], moment: str, changes: Mapping[str, Limits]
) -> set[str]:
    """Take the starts of these tasks out of the buckets of their groups, and return these groups."""
    taken: defaultdict[str, float] = defaultdict(float)
    for claim in claims:
        own, lane = Limits(interval=claim.extras.lane_interval), claim.lane or ""
        if interval := in_force(own, lane, claim.task_name, changes).interval:
            taken[lane] += interval
    for lane, seconds in taken.items():
        db.execute(sql.CLOSE, (lane, later(_full_at(db, lane, moment), seconds)))
    return set(taken)


def _full_at(db: RawConnection, lane: str, moment: str) -> str:
    """Return when the bucket of a group is full; `moment` if it is."""
    found = db.execute(sql.OPENING, (lane,)).fetchone()
    return max(found[0], moment) if found else moment


def hold_gates(db: RawConnection) -> None:
    """Keep Foremen from admitting tasks, and from counting running ones, until the transaction ends."""
    db.execute(sql.HOLD_GATES)


def recheck(db: RawConnection, lanes: Iterable[str]) -> None:
    """Make a Foreman check these groups."""
    if rows := [(lane,) for lane in lanes]:
        hold_gates(db)  # or a task that a Foreman is just blocking would not be found
        db.executemany(sql.RECHECK, rows)


def forget(db: RawConnection, moment: str) -> bool:
    """Delete openings of buckets that have been full for an hour. Return whether there may be more."""
    before = later(moment, -3600)  # the clocks of Foremen may differ
    return delete_old(db, sql.OLD_OPENING, sql.FORGET_OPENINGS, before)
