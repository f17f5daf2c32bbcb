"""The Crew: the worker threads, what waits for them, and what they hand back.

Waking a thread is dear, above all on a virtual machine with idle cores, so nobody is woken
for each task: a worker takes its next task from the backlog without blocking, and parks only
when there is none; the Foreman is woken only if it sleeps and is needed.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from logging import WARNING
from typing import Any, TypeVar

from . import worker
from .guardian import Guardian
from .limits import Desk
from .log import say_seldom
from .logbook import Logbook, Note
from .nursery import Nursery
from .records import Claim, Outcome
from .tasks import TaskFunction, resolve

T = TypeVar("T")

#: After so many seconds without work a thread closes its connections, so that WAL files can be checkpointed.
IDLE_AFTER = 10.0
#: After so many its connections are looked at again before a task: some may have outlived CONN_MAX_AGE.
AGED_AFTER = 1.0


class Crew:
    """Up to `size` threads that run claims. All methods but the workers' own are the Foreman's to call.

    `wake_foreman` is called by a worker when `foreman_sleeps` is set and no more than
    `low_water` claims are left in the backlog. `nursery`: where isolated tasks get their processes from.
    """

    def __init__(
        self, size: int, logbook: Logbook, wake_foreman: Callable[[], None], nursery: Nursery | None = None
    ) -> None:
        self.size = size
        self.low_water = 0
        self.foreman_sleeps = False
        self._logbook = logbook
        self._wake_foreman = wake_foreman
        self._nursery = nursery
        #: One for each thread that may exist: at most `size` tasks run at once.
        self._slots = threading.BoundedSemaphore(size)
        self._threads: list[threading.Thread] = []
        self._backlog: deque[tuple[int, Claim]] = deque()
        self._outcomes: deque[tuple[int, Outcome]] = deque()
        self._parked: list[threading.Lock] = []
        self._desks: list[Desk] = []

    def hand_over(self, claims: Iterable[tuple[int, Claim]]) -> None:
        """Let the crew run claims, each with the number of its logbook cell.

        Raises RuntimeError if not a single thread can be had.
        """
        self._backlog.extend(claims)
        for _ in range(len(self._backlog)):
            if self._parked:
                self._parked.pop().release()
            elif not self._hire():
                break

    def _hire(self) -> bool:
        if not self._slots.acquire(blocking=False):
            return False
        thread = threading.Thread(target=self._work, name="snappea-worker", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # can't start new thread
            self._slots.release()
            if not self._threads:
                raise
            say_seldom(WARNING, "No more than %d worker threads: %s", len(self._threads), error)
            return False
        self._threads.append(thread)
        return True

    def backlog(self) -> int:
        """Return how many claims wait for a worker."""
        return len(self._backlog)

    def take_back(self) -> list[tuple[int, Claim]]:
        """Return the claims that no worker has begun; they are the crew's no longer."""
        return _drain(self._backlog)

    def revoke(self, cell: int, claim: Claim) -> None:
        """End a claim: at once if no worker has begun it, otherwise by TaskRevoked inside the task."""
        try:
            self._backlog.remove((cell, claim))
        except ValueError:
            any(desk.interrupt(claim) for desk in self._desks)
        else:
            reason = "TaskRevoked: before it began"
            self._outcomes.append((cell, Outcome(claim, 0.0, reason, reason, is_revoked=True)))

    def collect(self) -> list[tuple[int, Outcome]]:
        """Return the outcomes since the last call."""
        return _drain(self._outcomes)

    def has_outcomes(self) -> bool:
        """Tell whether there is something to collect."""
        return bool(self._outcomes)

    def needs_foreman(self) -> bool:
        """Tell whether there are outcomes to settle, and a worker is idle or will be soon."""
        return bool(self._outcomes) and (len(self._backlog) <= self.low_water or bool(self._parked))

    def _work(self) -> None:
        parking = threading.Lock()
        parking.acquire()
        desk = Desk()
        self._desks.append(desk)
        try:
            while True:
                try:
                    cell, claim = self._backlog.popleft()
                except IndexError:
                    self._park(parking)
                else:
                    self._run(cell, claim, desk)
        finally:
            self._desks.remove(desk)
            self._slots.release()

    def _run(self, cell: int, claim: Claim, desk: Desk) -> None:
        self._logbook.note(cell, Note.BEGUN)
        task = _isolated(claim.task_name)
        outcome = self._guard(claim, task) if task else worker.run(claim, desk)
        if not outcome.error:
            self._logbook.note(cell, Note.SUCCEEDED)
        else:
            self._logbook.note(cell, Note.FAILED if outcome.retry_after is None else Note.TO_RETRY)
        worker.tidy_connections()
        self._outcomes.append((cell, outcome))
        if self.foreman_sleeps:
            self._wake_foreman_if_needed()

    def _guard(self, claim: Claim, task: TaskFunction[..., Any]) -> Outcome:
        """Have a claim run in a process of its own."""
        guardian = Guardian(claim, task, self._nursery)
        self._desks.append(guardian)
        try:
            return guardian.run()
        finally:
            self._desks.remove(guardian)

    def _wake_foreman_if_needed(self) -> None:
        if self.needs_foreman():
            self.foreman_sleeps = False
            self._wake_foreman()

    def _park(self, parking: threading.Lock) -> None:
        """Wait until there may be something in the backlog."""
        self._parked.append(parking)
        if self._backlog:  # handed over before the Foreman could see us here
            try:
                self._parked.remove(parking)
                return
            except ValueError:
                pass  # it saw us all the same: the lock is released, or about to be
        if self.foreman_sleeps:
            self._wake_foreman_if_needed()
        parked_at = time.monotonic()
        if not parking.acquire(timeout=IDLE_AFTER):
            worker.close_connections()
            parking.acquire()
        elif time.monotonic() - parked_at > AGED_AFTER:
            worker.tidy_connections()


def _isolated(name: str) -> TaskFunction[..., Any] | None:
    """Return the task of a name if it wants a process of its own."""
    try:
        task = resolve(name)
    except BaseException:  # what importing its module raised, too: the worker will tell
        return None
    return task if task.options.is_isolated else None


def _drain(queue: "deque[T]") -> list[T]:
    """Take everything out, while others put in or take out as well."""
    taken = []
    try:
        while True:
            taken.append(queue.popleft())
    except IndexError:
        return taken
