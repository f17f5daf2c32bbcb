"""The Round: what one turn of the Foreman's loop has to do, computed once."""

import time
from collections.abc import Collection
from math import inf
from typing import NamedTuple

from ..conf import Settings
from ..queue import store
from ..queue.clock import lead, seconds_until
from ..queue.database import RawConnection
from ..queue.operations import CONFIRM_EVERY
from ..queue.records import Outcome, Peek
from ..tasks.function import registry
from ..workers.threads import WorkerPool, drain
from .admission import Admission
from .in_flight import InFlight
from .restart import Restart
from .shutdown import Shutdown
from .statistics import Stats

#: How much work to claim ahead, in seconds: no tasks that take longer.
AHEAD = 0.005
MOST_AHEAD = 1000
#: How soon to look at the tables if all workers are busy, in seconds.
LOOK_EVERY = 1.0
#: If the clock moves by so many seconds against the monotonic one, it was set, or the machine slept.
STEP = 0.1
#: How long claims may wait for a worker before they are given back, in seconds.
STALE_AFTER = 0.1


class Round(NamedTuple):
    """What to do now. Times are by time.monotonic()."""

    has_work: bool
    has_room: bool
    #: How many tasks may be claimed for threads, for the event loop, and in all.
    rooms: tuple[int, int, int]
    #: How many of them are claimed ahead, before a worker is free.
    ahead: int
    #: Whether a schedule is due.
    fires: bool
    #: Until when to sleep if there is no work. The deadline of a running task may be earlier.
    wakes_at: float


class Prefetch:
    """Learns from each round how many tasks to claim `ahead` of those that can run now."""

    def __init__(self, most: int = MOST_AHEAD) -> None:
        self._most = most
        self.ahead = 0
        self._mark, self._marked_at = 0, 0.0

    def learn(self, outcomes: Collection[tuple[int, Outcome]], size: int, since: float) -> None:
        """Learn how many tasks a pool of `size` runs in AHEAD seconds, if these have ended `since` then."""
        count = len(outcomes)
        seconds = sum([outcome.duration for _cell, outcome in outcomes if not outcome.claim.is_async])
        by_duration = size * AHEAD * count / max(seconds, 1e-6)
        by_rate = AHEAD * count / max(time.monotonic() - since, 1e-6)
        self.ahead = int(min(by_duration, by_rate, self._most))

    def is_stale(self, handed: int, waiting: int) -> bool:
        """Return whether a claim has waited for a worker for STALE_AFTER to twice as long.

        `handed`: how many claims were ever handed to the workers. `waiting`: how many of them still wait.
        """
        here = time.monotonic()
        if handed - waiting >= self._mark:  # all claims that waited at the mark have begun
            self._mark, self._marked_at = handed, here
        return here - self._marked_at > STALE_AFTER


class Planner:
    """Computes each Round, and keeps what is known about the queue between rounds."""

    #: Set before the first round.
    pool: WorkerPool

    def __init__(
        self,
        settings: Settings,
        most_ahead: int,
        in_flight: InFlight,
        admission: Admission,
        stats: Stats,
        restart: Restart,
        shutdown: Shutdown,
    ) -> None:
        self._most_on_loop = settings.ASYNC_CONCURRENCY
        self._prefetch = Prefetch(most_ahead)
        self._in_flight, self._admission, self._stats = in_flight, admission, stats
        self._restart, self._shutdown = restart, shutdown
        self._uses_loop = any(task.is_async for task in registry.values())
        #: There may be tasks to claim that the last claim did not see.
        self.may_have_more = True
        #: When to check the files and the tables again, and when the last round was.
        self.look_at, self.worked_at = 0.0, time.monotonic()
        self._due_at = self._tick_at = self._confirm_at = self._peek_at = inf
        self._peeked_at, self._lead = 0.0, lead()

    def plan(self, rang: bool) -> Round:
        """Return what to do now, and decide whether to stop."""
        in_flight, shutdown, opening = self._in_flight, self._shutdown, self._admission.opening
        if self.pool.outcomes or self.pool.backlog:
            self._take_in(rang)
        here, backlog = time.monotonic(), len(self.pool.backlog)
        most = min(len(in_flight.logbook.free), self._restart.most - in_flight.started)
        is_idle = most > 0 and opening == inf and not (self.may_have_more or in_flight.claims)
        if shutdown.drains or shutdown.signals or self._restart.due or most <= 0:
            self.may_have_more |= shutdown.decide(is_idle, backlog)
        stop_by = inf
        if shutdown.stop_by is not None:
            most, stop_by = 0, 0.0 if shutdown.is_done() else shutdown.stop_by
            if backlog:
                self.take_back()
                backlog = 0
        ahead = self._prefetch.ahead if in_flight.outcomes else 0  # running tasks may take long
        in_threads = in_flight.count_running() - len(in_flight.on_loop)
        room = min(self.pool.size + len(self.pool.stuck) + ahead - in_threads, most)
        loop_room = min(self._most_on_loop - len(in_flight.on_loop), most) if self._uses_loop else 0
        has_room = room > 0 or loop_room > 0
        if not has_room:  # it sleeps without the bell, which a pause or a revocation rings
            self.look_at = min(self.look_at, here + LOOK_EVERY)
        claim_at = min(self._due_at, opening, self._admission.purge_at) if has_room else inf
        if self.may_have_more and has_room:
            claim_at = 0
        writes_stats = self._stats.backlog is not None
        work_at = min(claim_at, self._tick_at, self._confirm_at)
        has_work = here >= work_at or writes_stats or in_flight.is_to_be_written(here)
        wakes_at = min(work_at, self.look_at, stop_by, here + STALE_AFTER if backlog else inf)
        fires = here >= self._tick_at
        return Round(has_work, has_room, (max(room, 0), loop_room, most), ahead, fires, wakes_at)

    def _take_in(self, rang: bool) -> None:
        """Take over outcomes, unless they can wait, and claims that have waited too long for a worker."""
        pool = self.pool
        if rang or pool.needs_foreman():
            self._in_flight.collect(drain(pool.outcomes))
        if self._in_flight.outcomes:
            self._prefetch.learn(self._in_flight.outcomes, pool.size, self.worked_at)
        if (backlog := len(pool.backlog)) and self._prefetch.is_stale(pool.handed, backlog):
            self.take_back()

    def take_back(self) -> None:
        """Give back the claims that no worker has begun."""
        self._in_flight.take_back(self.pool.take_back())
        self._prefetch.ahead = 0

    def take_notice(self, peek: Peek, is_of_round: bool = False) -> None:
        """Note when something is due. `is_of_round`: the peek is from a committed round."""
        here = time.monotonic()
        if is_of_round:
            self.worked_at = here
        self._due_at = inf if peek.due is None else here + seconds_until(peek.due)
        self._tick_at = inf if peek.tick is None else here + seconds_until(peek.tick)
        self._confirm_at = (here + CONFIRM_EVERY if is_of_round else here) if peek.has_unheard else inf
        if peek.has_async and not self._uses_loop:
            self._uses_loop = self.may_have_more = True

    def has_changed(self) -> bool:
        """Return whether there may be news without another process: by our own work, or by the clock."""
        before, self._lead = self._lead, lead()
        has_worked = self.worked_at >= self._peeked_at
        return has_worked or time.monotonic() >= self._peek_at or abs(self._lead - before) > STEP

    def look(self, db: RawConnection) -> bool:
        """Check the tables. Return whether there may be more to claim."""
        self._peeked_at = here = time.monotonic()
        peek = store.peek(db)
        self.take_notice(peek)
        if peek.has_revoked:
            self.end_revoked(db)
        self._peek_at = inf if peek.expiry is None else here + seconds_until(peek.expiry)
        is_due = here >= self._peek_at
        if peek.has_revoked:  # a worker may just have taken it, and not begun
            self._peek_at = here
        return peek.has_newcomers or is_due

    def end_revoked(self, db: RawConnection) -> None:
        """End the running tasks that were revoked."""
        revoked = store.revoked(db)
        for cell, claim in list(self._in_flight.claims.items()):
            if claim.fence in revoked:
                self.pool.revoke(cell, claim)
