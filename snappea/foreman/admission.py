"""Admission: which waiting tasks may be claimed now.

Tasks wait while their queue is paused, not served or at its limit, and while their concurrency group is at
its limit.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Protocol

from ..conf import declared_queues, queue_limits
from ..errors import CannotStart
from ..queue import groups, operations, store
from ..queue.database import RawConnection
from ..queue.records import Claim, Discarded, Expired, Newcomer, Peek
from ..queue.states import Status

if TYPE_CHECKING:  # neither can be imported on Windows, where the admin tells why a task waits
    from ..workers.threads import WorkerPool
    from .in_flight import InFlight

#: How often a portion of expired results is deleted, in seconds, so that they do not delay waiting tasks.
PURGE_EVERY = 0.01


class SharedLimits(Protocol):
    """The limits that all Foremen of a database share."""

    def running_in(self, db: RawConnection) -> dict[str, int]:
        """Return how many tasks run in each queue."""

    def served(self) -> list[str]:
        """Return the queues that Foremen serve; empty if one of them serves all."""

    def clock(self, db: RawConnection) -> str:
        """Return the time by a clock that all Foremen share."""


class Openings:
    """When rate-limited groups may start their next tasks, by time.monotonic(). There may be many groups."""

    def __init__(self) -> None:
        self._by_lane: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        #: The time of the first one.
        self.first = inf

    def add(self, lane: str, opening: float) -> None:
        """Note the opening of a group, unless an earlier one is known."""
        if opening < self._by_lane.get(lane, inf):
            self._by_lane[lane] = opening
            heapq.heappush(self._heap, (opening, lane))
            self.first = self._heap[0][0]

    def take_due(self, here: float) -> set[str]:
        """Remove and return the groups that may start tasks by now."""
        due = set()
        while self._heap and self._heap[0][0] <= here:
            opening, lane = heapq.heappop(self._heap)
            if self._by_lane.get(lane) == opening:
                del self._by_lane[lane]
                due.add(lane)
        self.first = self._heap[0][0] if self._heap else inf
        return due


class Admission:
    """Claims tasks that may run.

    `queues`: the only ones to serve. `strict`: serve them strictly in this order. `shared`: the limits, if
    other Foremen claim from the same database. `claim`: what claims if no gate was opened.
    """

    def __init__(
        self,
        queues: Sequence[str] = (),
        strict: bool = False,
        shared: SharedLimits | None = None,
        claim: Callable[..., list[Claim]] = store.claim,
    ) -> None:
        declared = declared_queues()
        for name in queues:
            if declared is not None and name not in declared:
                raise CannotStart(f'Queue {name!r} is not in SNAPPEA["QUEUES"], only {", ".join(declared)}.')
        if strict and not queues:
            raise CannotStart("--strict needs --queues: name the queues to serve, in their order.")
        #: The only queues to serve, and whether strictly in this order.
        self.served, self.is_strict = list(dict.fromkeys(queues)), strict
        self._shared, self._take = shared, claim
        self._limits = queue_limits()
        #: When to check the gates again, by time.monotonic().
        self.opening = inf
        #: When to delete expired results again, by time.monotonic(), if there were some.
        self.purge_at = inf
        self._openings = Openings()
        self._discarded: list[Discarded] = []
        #: Groups that tasks have left since the last committed claim.
        self.left: set[str] = set()
        #: Whether tasks may have been opened that other Foremen serve.
        self.opens_for_others = False
        self._paused: set[str] = set()
        self._changes: dict[str, groups.Limits] = {}  # of limits, at run time
        self._has_opened = False  # gates, in this round
        self._has_more = False  # more newcomers than one round admits

    def note_left(self, tasks: Iterable[Claim | Expired]) -> None:
        """Note the groups of tasks that have ended."""
        for task in tasks:
            # most claims have no extras, and finding that out is cheaper than asking for the group
            if (isinstance(task, Expired) or task.extras_json) and task.lane:
                self.left.add(task.lane)

    def hand_on(self, db: RawConnection) -> None:
        """Make the other Foremen check the groups that this one would have checked."""
        if self._shared:
            groups.recheck(db, self.left | self._openings.take_due(inf))

    def heed_pauses(self, db: RawConnection, pool: "WorkerPool", in_flight: "InFlight") -> Peek:
        """Give back the unbegun tasks of queues that were just paused, and confirm it to `pause()`.

        Returns a new peek.
        """
        for name, since in store.unconfirmed_pauses(db):
            unbegun = pool.take_back(name)
            in_flight.take_back(unbegun)
            claims = [claim for _cell, claim in unbegun]
            store.give_back(db, claims)
            self.note_left(claims)
            if not (pool.is_starting(name) or in_flight.is_about_to_begin(name)):
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
        in_flight: "InFlight",
    ) -> tuple[list[Claim], list[Expired], Peek]:
        """Claim up to `room` tasks for threads and `loop_room` for the event loop; delete expired tasks.

        `most`: how many may be claimed in all. `peek`: of this transaction, so that no more urgent task is
        missed. Returns the claims, the expired tasks and the latest peek.
        """
        expired: list[Expired] = []
        self._discarded = []
        is_due = peek.due is not None and peek.due <= moment
        if is_due:
            store.promote(db, moment)
        if (peek.expiry is not None and peek.expiry <= moment) or self.purge_at != inf:
            expired = self._expire(db, moment)
        if is_due or expired:
            peek = store.peek(db)
        addressed = store.claim_addressed(db, moment, room) if peek.has_addressed else []
        claims = addressed + self.claim(db, moment, room - len(addressed), peek, in_flight)
        loop_room = min(loop_room, most - len(claims))
        if loop_room > 0:  # those for the loop come last
            if peek.has_addressed:
                addressed = store.claim_addressed(db, moment, loop_room, is_async=True)
                claims, loop_room = claims + addressed, loop_room - len(addressed)
            running = [*in_flight.running(), *claims]
            shares = self._shares(db, store.waiting_queues(db, is_async=True), loop_room, running)
            claims += self._claim(db, moment, loop_room, shares, is_async=True)
        expired += self._discarded
        if claims:
            late = [one for one in claims if one.extras_json and (one.extras.expires_at or "never") <= moment]
            if late:
                expired += store.expire_claimed(db, late)
                claims = [claim for claim in claims if claim not in late]
        self.opening = 0.0 if self._has_more else self._openings.first
        return claims, expired, peek

    def _expire(self, db: RawConnection, moment: str) -> list[Expired]:
        """Delete some expired tasks, but expired results only every PURGE_EVERY."""
        here = time.monotonic()
        if here < self.purge_at < inf:
            return []
        expired = store.expire(db, moment)
        self.note_left(expired)
        is_purge = any(task.status == Status.SUCCESSFUL for task in expired)
        self.purge_at = here + PURGE_EVERY if is_purge else inf
        return expired

    def claim(
        self, db: RawConnection, moment: str, room: int, peek: Peek, in_flight: "InFlight"
    ) -> list[Claim]:
        """Claim up to `room` tasks for threads."""
        self._paused = set(operations.paused_by(db)) if peek.has_pauses else set()
        self._changes = groups.changed(db) if peek.has_limits else {}
        self._has_more = False
        if self._openings.first != inf:
            self.left |= self._openings.take_due(time.monotonic())
        gates = self._has_opened = peek.has_newcomers or bool(self.left)
        if self._shared and (gates or self._limits):
            groups.hold_gates(db)
        if gates:
            self._open_gates(db, moment, groups.block_new(db) if peek.has_newcomers else [])
        elif peek.first is None:
            return []
        elif peek.first == peek.last and not (self.served or self._limits or self._paused):
            return self._claim(db, moment, room, {peek.first: room})
        shares = self._shares(db, store.waiting_queues(db), room, in_flight.running())
        return self._claim(db, moment, room, shares)

    def _claim(
        self, db: RawConnection, moment: str, room: int, shares: dict[str, int], is_async: bool = False
    ) -> list[Claim]:
        if not shares:
            return []
        take = store.claim if self._has_opened else self._take
        claims = take(db, moment, room, shares, self.is_strict, is_async)
        rated = []
        for claim in claims:
            if claim.extras_json and (claim.extras.lane_interval or self._changes):
                rated.append(claim)  # a comprehension is another call in each round
        if rated:
            if self._shared:
                groups.hold_gates(db)
                moment = self._shared.clock(db)
            for lane in groups.note_starts(db, rated, moment, self._changes):
                self._openings.add(lane, 0.0)  # the next round checks it
        return claims

    def _open_gates(self, db: RawConnection, moment: str, newcomers: list[Newcomer]) -> None:
        self._has_more = len(newcomers) >= groups.AT_ONCE
        here, served = time.monotonic(), self.served
        if self._shared:
            moment = self._shared.clock(db)
            served = self._shared.served() if served else served
            self.opens_for_others = bool(self.served)
        for lane in self.left.union(task.lane for task in newcomers if task.lane):
            wait = groups.admit(db, lane, moment, self._changes, served)
            if wait is not None:
                self._openings.add(lane, here + wait)
        if ids := [task.id for task in newcomers if task.discards]:
            self._discarded = groups.discard(db, ids, served)

    def _shares(
        self, db: RawConnection, waiting: list[str], room: int, running: Iterable[Claim]
    ) -> dict[str, int]:
        """Return how many tasks may be claimed from each queue, in the order of the queues."""
        claimed = Counter[str]()
        if self._limits:
            queues = (claim.queue for claim in running)
            claimed = Counter(self._shared.running_in(db) if self._shared else queues)
        return shares_of(waiting, room, self.served, self._paused, self._limits, claimed)


def shares_of(
    waiting: Sequence[str],
    room: int,
    served: Sequence[str],
    paused: Collection[str],
    limits: Mapping[str, int],
    running: Mapping[str, int],
) -> dict[str, int]:
    """Return how many tasks may be claimed from each queue with waiting tasks, in the order of the queues.

    `served`: the only queues, if not empty. `running`: how many tasks of each queue run.
    """
    if served:
        waiting = [name for name in served if name in waiting]
    waiting = [name for name in waiting if name not in paused]
    shares = {
        name: min(room, limits[name] - running.get(name, 0)) if name in limits else room for name in waiting
    }
    return {name: share for name, share in shares.items() if share > 0}
