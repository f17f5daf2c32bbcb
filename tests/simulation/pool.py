"""Workers and an event loop that run no code: how long a task runs, and how it ends, is decided by chance.

The pool is the real one, with other workers.
"""

import math
import random
from collections.abc import Callable
from typing import Any, Protocol

from snappea.queue.logbook import Logbook, Note
from snappea.queue.records import Claim, Fence, Outcome
from snappea.workers.execute import note_of
from snappea.workers.threads import WorkerPool

from .timeline import Spans, Timeline, drawn

#: How long each step of a worker takes at most, in seconds.
STEP = 0.0003
#: How long tasks run, in seconds.
DURATIONS: Spans = ((60, 0.0, 0.002), (25, 0.002, 0.5), (12, 0.5, 8.0), (3, 8.0, 60.0))
#: How often a task is retried at most.
MOST_RETRIES = 3
RETRY_DELAYS = (0, 0, 0.01, 0.5, 5, 30)
TRACEBACK = 'Traceback\n  File "shop/tasks.py", line 1, in charge\nValueError: no luck\n'


class Watcher(Protocol):
    """Sees what the workers do."""

    timeline: Timeline
    seed: str

    def note_begin(self, claim: Claim, cell: int) -> None:
        """A task begins."""

    def note_end(self, claim: Claim, outcome: Outcome) -> None:
        """A task has ended."""

    def note_noted(self, claim: Claim) -> None:
        """The logbook knows."""


class Body:
    """A task that runs: a worker's only one, or one of those of the event loop."""

    def __init__(self, watcher: Watcher, logbook: Logbook, cell: int, claim: Claim) -> None:
        self._watcher, self._logbook = watcher, logbook
        self.cell, self.claim = cell, claim
        self.random = random.Random(f"{watcher.seed}/{claim.id}/{claim.claims}")
        self.is_alive = True
        self.is_ended = self.is_revoked = False
        self._began = 0.0

    def begin(self, report: Callable[[int, Outcome], None]) -> None:
        """Begin, and report the outcome later."""
        self._logbook.note(self.cell, Note.BEGUN)
        self._watcher.note_begin(self.claim, self.cell)
        self._report = report
        self._began = self._watcher.timeline.now
        self.later(drawn(self.random, DURATIONS), self._end)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Call a function so much later, unless the process is gone by then."""
        self._watcher.timeline.after(seconds, lambda: act() if self.is_alive else None)

    def revoke(self) -> None:
        """End soon, or ignore it."""
        if not self.is_revoked and not self.is_ended:
            self.is_revoked = True
            if self.random.random() < 0.8:
                self.later(self.random.random() * 0.01, self._end)

    def _end(self) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        outcome = self._outcome()
        self._watcher.note_end(self.claim, outcome)

        def note() -> None:
            self._logbook.note(self.cell, note_of(outcome))
            self._watcher.note_noted(self.claim)
            self.later(self.random.random() * STEP, lambda: self._report(self.cell, outcome))

        self.later(self.random.random() * STEP, note)

    def _outcome(self) -> Outcome:
        claim, duration = self.claim, self._watcher.timeline.now - self._began
        dice = self.random.random()
        if self.is_revoked:
            return Outcome(claim, duration, TRACEBACK, "TaskRevoked: ", is_revoked=True)
        if dice < 0.65:
            result = '"done"' if claim.extras_json and claim.uses_result else None
            return Outcome(claim, duration, result=result)
        retry_after = None
        if dice < 0.85 and claim.retries < MOST_RETRIES:
            retry_after = self.random.choice(RETRY_DELAYS)
        return Outcome(claim, duration, TRACEBACK, "ValueError: no luck", retry_after)


class Worker:
    """A thread of the pool: its handle, and the lock on which it parks, are the same object."""

    deadline = math.inf

    def __init__(self, pool: "SimulatedPool", number: int) -> None:
        self._pool = pool
        self._random = random.Random(f"{pool.watcher.seed}/worker/{number}")
        self.body: Body | None = None
        self.raised_at = math.inf
        self.is_replaced = False
        self.soon(self._take)

    def soon(self, act: Callable[[], None]) -> None:
        """Go on a little later, unless the process is gone by then."""
        pool = self._pool
        wait = self._random.random() * STEP
        pool.watcher.timeline.after(wait, lambda: act() if pool.is_alive else None)

    @property
    def task(self) -> Claim | None:
        """The claim that runs."""
        return self.body.claim if self.body and not self.body.is_ended else None

    def release(self) -> None:
        """Be woken."""
        self.soon(self._take)

    def revoke(self, claim: Claim) -> bool:
        """Be told to end a task."""
        if self.task is not claim or not self.body or self.body.is_revoked:
            return False
        self.raised_at = min(self.raised_at, self._pool.watcher.timeline.now)
        self.body.revoke()
        return True

    def enforce_limit(self, here: float) -> None:
        """End a task that exceeds its limit: none has one."""

    def replace(self) -> Claim | None:
        """Give up a task that does not end."""
        self.is_replaced = self.task is not None
        self.raised_at = math.inf
        return self.task

    def _take(self) -> None:
        pool = self._pool
        if self.is_replaced:
            pool.leave(self)
            return
        try:
            cell, claim = pool.backlog.popleft()
        except IndexError:
            self.soon(self._park)
            return
        body = self.body = Body(pool.watcher, pool.logbook, cell, claim)
        pool.bodies.append(body)
        self.soon(lambda: body.begin(self._report))

    def _park(self) -> None:
        pool = self._pool
        if pool.backlog:
            self._take()
        else:
            pool.park(self)

    def _report(self, cell: int, outcome: Outcome) -> None:
        self.raised_at = math.inf
        if self.body:
            self._pool.bodies.remove(self.body)
        self.body = None
        self._pool.report(cell, outcome)
        self.soon(self._take)


class Loop:
    """Stands in for the event loop."""

    def __init__(self, pool: "SimulatedPool") -> None:
        self._pool = pool
        self._waiting: dict[Fence, tuple[int, Claim]] = {}
        self._running: dict[int, Body] = {}

    def hand_over(self, claims: list[tuple[int, Claim]]) -> None:
        """Run claims."""
        for cell, claim in claims:
            self._waiting[claim.fence] = cell, claim
            body = Body(self._pool.watcher, self._pool.logbook, cell, claim)
            self._pool.bodies.append(body)
            body.later(body.random.random() * STEP, lambda body=body: self._begin(body))  # type: ignore[misc]

    def _begin(self, body: Body) -> None:
        if self._waiting.pop(body.claim.fence, None):
            self._running[body.cell] = body
            body.begin(self._end)
        else:
            self._pool.bodies.remove(body)

    def _end(self, cell: int, outcome: Outcome) -> None:
        self._pool.bodies.remove(self._running.pop(cell))
        self._pool.report(cell, outcome)

    def take_back(self, queue: str | None = None) -> list[tuple[int, Claim]]:
        """Return the claims that have not begun; `queue`: only those of this queue."""
        taken = [fence for fence, (_cell, claim) in self._waiting.items() if queue in (None, claim.queue)]
        return [self._waiting.pop(fence) for fence in taken]

    def revoke(self, claim: Claim) -> None:
        """End a task."""
        for body in self._running.values():
            if body.claim is claim:
                body.revoke()

    def look(self) -> None:
        """Look whether it is blocked: it never is."""


class SimulatedPool(WorkerPool):
    """The real pool, with other workers."""

    watcher: Watcher

    def __init__(self, size: int, logbook: Logbook, *makes: Any) -> None:
        super().__init__(size, logbook, *makes)
        self.logbook = logbook
        self.loop: Any = Loop(self)
        self.bodies: list[Body] = []
        self.is_alive = True
        self._hired = 0

    def hand_over(self, claims: list[tuple[int, Claim]]) -> None:
        self.watcher.timeline.pause(self.watcher.timeline.current.next_pause())
        super().hand_over(claims)

    def _start_worker(self) -> bool:
        if not self._slots.acquire(blocking=False):
            return False
        self._hired += 1
        handles: list[Any] = self._handles
        handles.append(Worker(self, self._hired))
        return True

    def park(self, worker: Worker) -> None:
        """Let a worker wait until there may be a claim."""
        parked: list[Any] = self._parked
        parked.append(worker)
        if self.foreman_sleeps:
            self._wake_foreman_if_needed()

    def report(self, cell: int, outcome: Outcome) -> None:
        """Hand an outcome to the Foreman."""
        self._report(cell, outcome)

    def leave(self, worker: Any) -> None:
        """Let a worker that was replaced end."""
        self._handles.remove(worker)
        self.stuck.remove(worker)

    def bury(self) -> None:
        """Let everything in it end at once."""
        self.is_alive = False
        for body in self.bodies:
            body.is_alive = False
