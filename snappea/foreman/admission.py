"""The Admission: which of the waiting tasks may be claimed now.

Not those of a queue that is paused, is not served or has as many running as it may; not those of a lane
that has, or that started one a moment ago.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from ..conf import current, declared_queues
from ..errors import CannotStart
from ..postgres import foremen
from ..queue import operations, store
from ..queue.database import RawConnection
from ..queue.records import Claim, Expired, Peek
from ..workers.threads import WorkerPool
from .in_flight import InFlight


class Admission:
    """Claims what may run. `queues`: the only ones to serve; `strict`: each before the next.

    `is_shared`: other Foremen claim as well, and limits hold for all together.
    """

    def __init__(self, queues: Sequence[str] = (), strict: bool = False, is_shared: bool = False) -> None:
        declared = declared_queues()
        for name in queues:
            if declared is not None and name not in declared:
                raise CannotStart(f'Queue {name!r} is not in SNAPPEA["QUEUES"], only {", ".join(declared)}.')
        self._served = list(dict.fromkeys(queues))
        self._is_strict = strict
        self._is_shared = is_shared
        if strict and not queues:
            raise CannotStart("Strict about which queues? Name them, in their order.")
        self._limits = {
            name: int(limits["max_concurrency"])
            for name, limits in (current().QUEUES or {}).items()
            if "max_concurrency" in limits
        }
        #: When the next of a lane with a rate may start, by time.monotonic().
        self._openings: dict[str, float] = {}
        self._left: set[str] = set()
        self._paused: set[str] = set()
        self._has_more = False  # there were more newcomers than a round sorts in

    def note_left(self, tasks: Iterable[Claim | Expired]) -> None:
        """Take notice of tasks that have ended, and so may have left a lane, until forget_left()."""
        for task in tasks:
            if task[-1] and task.lane:  # the last is a claim's terms: most have none
                self._left.add(task.lane)

    def forget_left(self) -> None:
        """What was claimed is committed: what had been left is taken again."""
        self._left.clear()

    def heed_pauses(self, db: RawConnection, peek: Peek, pool: WorkerPool, in_flight: InFlight) -> Peek:
        """Give back what has not begun of a queue that was just paused, and confirm that to `pause()`.

        Returns a glance at what there is to do after that.
        """
        if not peek.has_unheard:
            return peek
        for name, since in foremen.unheard_pauses(db):
            unbegun = pool.take_back(name)
            in_flight.take_back(unbegun)
            store.give_back(db, [claim for _cell, claim in unbegun])
            self.note_left(claim for _cell, claim in unbegun)
            if not pool.is_starting(name):
                foremen.confirm_pause(db, name, since)
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
    ) -> tuple[list[Claim], list[Expired]]:
        """Claim for so many threads and so many seats on the event loop; delete what it is too late for.

        `most`: how many may be claimed in all. `peek`: of the same transaction.
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
            claims += self.claim_for_loop(db, moment, loop_room, chain(in_flight.running(), claims))
        late = [
            claim for claim in claims if claim.extras_json and (claim.extras.expires_at or "never") <= moment
        ]
        if late:
            expired += store.expire_claimed(db, late)
            claims = [claim for claim in claims if claim not in late]
        return claims, expired

    def claim(
        self, db: RawConnection, moment: str, room: int, peek: Peek, in_flight: InFlight
    ) -> list[Claim]:
        """Claim for up to `room` workers, beside what is running.

        `peek`: of the same transaction, so that nothing more urgent is passed over.
        """
        self._paused = set(operations.paused(db)) if peek.has_pauses else set()
        if self._is_shared and (peek.has_newcomers or self._left or self._openings or self._limits):
            foremen.hold_gates(db)
        newcomers = store.block_new(db) if peek.has_newcomers else []
        self._has_more = len(newcomers) == store.AT_ONCE
        if newcomers or self._left or self._openings:
            self._open_gates(db, set(newcomers))
        elif peek.first == peek.last and not (self._served or self._limits or self._paused):
            only = {} if peek.first is None else {peek.first: room}
            return self._note(db, store.claim(db, moment, room, only))
        shares = self._shares(db, store.waiting_queues(db), room, in_flight.running())
        return self._note(db, store.claim(db, moment, room, shares, self._is_strict) if shares else [])

    def claim_for_loop(
        self, db: RawConnection, moment: str, room: int, running: Iterable[Claim]
    ) -> list[Claim]:
        """Claim up to `room` asynchronous tasks beside what is running; after claim() has sorted in."""
        shares = self._shares(db, store.waiting_queues(db, is_async=True), room, running)
        if not shares:
            return []
        return self._note(db, store.claim(db, moment, room, shares, self._is_strict, is_async=True))

    def _note(self, db: RawConnection, claims: list[Claim]) -> list[Claim]:
        for claim in claims:
            if claim.extras_json and claim.lane and (interval := claim.extras.lane_interval):
                self._openings[claim.lane] = time.monotonic() + interval
                if self._is_shared:
                    foremen.close_for(db, claim.lane, interval)
        return claims

    def _open_gates(self, db: RawConnection, newcomers: set[str]) -> None:
        here = time.monotonic()
        self._left |= {lane for lane, opening in self._openings.items() if opening <= here}
        for lane in self._left | newcomers:
            if self._openings.get(lane, 0.0) <= here:
                self._openings.pop(lane, None)
                if self._is_shared and (seconds := foremen.opens_in(db, lane)) > 0:
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
        claimed = Counter(foremen.running_in(db) if self._is_shared else (claim.queue for claim in running))
        shares = {name: self._limits.get(name, room + claimed[name]) - claimed[name] for name in waiting}
        return {name: min(share, room) for name, share in shares.items() if share > 0}

    def is_due(self) -> bool:
        """Tell whether a gate is to be looked at."""
        opening = self.next_opening()
        return opening is not None and opening <= time.monotonic()

    def next_opening(self) -> float | None:
        """Return when a gate is to be looked at again, by time.monotonic()."""
        if self._has_more:
            return 0.0
        return min(self._openings.values(), default=None)
