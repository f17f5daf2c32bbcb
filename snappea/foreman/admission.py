"""The Admission: which of the waiting tasks may be claimed now.

Not those of a queue that is paused, is not served or has as many running as it may; not those of a
concurrency group that has, or that started one a moment ago.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from typing import Protocol

from ..conf import current, declared_queues
from ..errors import CannotStart
from ..queue import operations, store
from ..queue.database import RawConnection
from ..queue.records import Claim, Expired, Peek
from ..workers.threads import WorkerPool
from .in_flight import InFlight


class SharedLimits(Protocol):
    """What holds for all Foremen of a queue together."""

    def hold_gates(self, db: RawConnection) -> None:
        """Be the only one that opens gates or counts what runs of a queue, until the transaction ends."""

    def running_in(self, db: RawConnection) -> dict[str, int]:
        """Return how many tasks of each queue run."""

    def opens_in(self, db: RawConnection, lane: str) -> float:
        """Return in how many seconds the next of a group with a rate may start; 0 or less: now."""

    def close_for(self, db: RawConnection, lane: str, seconds: float) -> None:
        """Let nothing of a group start for so many seconds."""


class Admission:
    """Claims what may run. `queues`: the only ones to serve; `strict`: each before the next.

    `shared`: the limits, where other Foremen claim as well.
    """

    def __init__(
        self, queues: Sequence[str] = (), strict: bool = False, shared: SharedLimits | None = None
    ) -> None:
        declared = declared_queues()
        for name in queues:
            if declared is not None and name not in declared:
                raise CannotStart(f'Queue {name!r} is not in SNAPPEA["QUEUES"], only {", ".join(declared)}.')
        if strict and not queues:
            raise CannotStart("Strict about which queues? Name them, in their order.")
        self._served = list(dict.fromkeys(queues))
        self._is_strict = strict
        self._shared = shared
        self._limits = {
            name: int(limits["max_concurrency"])
            for name, limits in (current().QUEUES or {}).items()
            if "max_concurrency" in limits
        }
        #: When a gate is to be looked at again, by time.monotonic().
        self.opening = inf
        #: When the next of a group with a rate may start.
        self._openings: dict[str, float] = {}
        #: Groups that tasks have left since the last claim that was committed.
        self.left: set[str] = set()
        self._paused: set[str] = set()
        self._has_more = False  # there were more newcomers than a round sorts in

    def note_left(self, tasks: Iterable[Claim | Expired]) -> None:
        """Take notice of tasks that have ended, and so may have left a group."""
        for task in tasks:
            if task[-1] and task.lane:  # the last is a claim's extras: most have none
                self.left.add(task.lane)

    def heed_pauses(self, db: RawConnection, pool: WorkerPool, in_flight: InFlight) -> Peek:
        """Give back what has not begun of a queue that was just paused, and confirm that to `pause()`.

        Returns what there is to do after that.
        """
        for name, since in store.unconfirmed_pauses(db):
            unbegun = pool.take_back(name)
            in_flight.take_back(unbegun)
            claims = [claim for _cell, claim in unbegun]
            store.give_back(db, claims)
            self.note_left(claims)
            if not pool.is_starting(name):
                store.confirm_pause(db, name, since)
        return store.peek(db)

    def admit_and_claim(
        self,
        db: RawConnection,
        moment: str,
        room: int,
        loop_room: int,
        most: int,
        peek: Peek,
        in_flight: InFlight,
    ) -> tuple[list[Claim], list[Expired], Peek]:
        """Claim for so many threads and so many slots of the event loop; delete what has expired.

        `most`: how many may be claimed in all. `peek`: of the same transaction, so that nothing more urgent
        is passed over. Returns the newest one as well.
        """
        expired: list[Expired] = []
        is_due = peek.due is not None and peek.due <= moment
        if is_due:
            store.promote(db, moment)
        if peek.expiry is not None and peek.expiry <= moment:
            expired = store.expire(db, moment)
            self.note_left(expired)
        if is_due or expired:
            peek = store.peek(db)
        addressed = store.claim_addressed(db, moment, room) if peek.has_addressed else []
        claims = addressed + self.claim(db, moment, room - len(addressed), peek, in_flight)
        loop_room = min(loop_room, most - len(claims))
        if loop_room > 0:  # those for the loop come last
            if peek.has_addressed:
                addressed = store.claim_addressed(db, moment, loop_room, is_async=True)
                claims, loop_room = claims + addressed, loop_room - len(addressed)
            claims += self._claim_for_loop(db, moment, loop_room, [*in_flight.running(), *claims])
        if claims:
            late = [one for one in claims if one.extras_json and (one.extras.expires_at or "never") <= moment]
            if late:
                expired += store.expire_claimed(db, late)
                claims = [claim for claim in claims if claim not in late]
        self.opening = 0.0 if self._has_more else min(self._openings.values(), default=inf)
        return claims, expired, peek

    def claim(
        self, db: RawConnection, moment: str, room: int, peek: Peek, in_flight: InFlight
    ) -> list[Claim]:
        """Claim for up to `room` workers, beside what is running."""
        self._paused = set(operations.paused(db)) if peek.has_pauses else set()
        self._has_more = False
        gates = peek.has_newcomers or self.left or self._openings
        if self._shared and (gates or self._limits):
            self._shared.hold_gates(db)
        if gates:
            self._open_gates(db, store.block_new(db) if peek.has_newcomers else [])
        elif peek.first is None:
            return []
        elif peek.first == peek.last and not (self._served or self._limits or self._paused):
            return self._claim(db, moment, room, {peek.first: room})
        shares = self._shares(db, store.waiting_queues(db), room, in_flight.running())
        return self._claim(db, moment, room, shares)

    def _claim_for_loop(
        self, db: RawConnection, moment: str, room: int, running: Iterable[Claim]
    ) -> list[Claim]:
        """Claim up to `room` asynchronous tasks beside what is running; after claim() has sorted in."""
        shares = self._shares(db, store.waiting_queues(db, is_async=True), room, running)
        return self._claim(db, moment, room, shares, is_async=True)

    def _claim(
        self, db: RawConnection, moment: str, room: int, shares: dict[str, int], is_async: bool = False
    ) -> list[Claim]:
        if not shares:
            return []
        claims = store.claim(db, moment, room, shares, self._is_strict, is_async)
        for claim in claims:
            if claim.extras_json and claim.lane and (interval := claim.extras.lane_interval):
                self._openings[claim.lane] = time.monotonic() + interval
                if self._shared:
                    self._shared.close_for(db, claim.lane, interval)
        return claims

    def _open_gates(self, db: RawConnection, newcomers: list[str]) -> None:
        self._has_more = len(newcomers) == store.AT_ONCE
        here = time.monotonic()
        self.left |= {lane for lane, opening in self._openings.items() if opening <= here}
        for lane in self.left.union(newcomers):
            if self._openings.get(lane, 0.0) <= here:
                self._openings.pop(lane, None)
                if self._shared and (seconds := self._shared.opens_in(db, lane)) > 0:
                    self._openings[lane] = here + seconds
                else:
                    store.admit(db, lane, self._served)

    def _shares(
        self, db: RawConnection, waiting: list[str], room: int, running: Iterable[Claim]
    ) -> dict[str, int]:
        """Return how many may be claimed from which queue, in the order of the queues."""
        if self._served:
            waiting = [name for name in self._served if name in waiting]
        waiting = [name for name in waiting if name not in self._paused]
        if not self._limits:
            return dict.fromkeys(waiting, room)
        claimed = Counter(self._shared.running_in(db) if self._shared else (claim.queue for claim in running))
        shares = {name: self._limits.get(name, room + claimed[name]) - claimed[name] for name in waiting}
        return {name: min(share, room) for name, share in shares.items() if share > 0}
