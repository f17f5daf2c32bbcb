"""The Crew: the worker threads, what waits for them, and what they hand back.

Waking a thread is dear, above all on a virtual machine with idle cores, so nobody is woken
for each task: a worker takes its next task from the backlog without blocking, and parks only
when there is none; the Foreman is woken only if it sleeps and is needed.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from logging import WARNING
from typing import Any, TypeVar

from ..conf import Settings
from ..log import clean, say, say_seldom
from ..queue.logbook import Logbook, Note
from ..queue.records import Claim, Outcome
from ..tasks.registry import TaskFunction, find_task_of
from . import execute
from .event_loop import Loop
from .limits import TaskHandle
from .processes.fork_server import ForkServer
from .processes.supervisor import Supervisor

T = TypeVar("T")

#: After so many seconds beyond its end a task that was told to end is stuck, and another worker takes the
#: place of its own.
STUCK_AFTER = 5.0
#: After so many seconds without work a thread closes its connections, so that WAL files can be checkpointed.
IDLE_AFTER = 10.0
#: After so many its connections are looked at again before a task: some may have outlived CONN_MAX_AGE.
AGED_AFTER = 1.0


class WorkerPool:
    """Up to `size` threads that run claims. All methods but the workers' own are the Foreman's to call.

    `wake_foreman` is called by a worker when `foreman_sleeps` is set and no more than
    `low_water` claims are left in the backlog. `fork_server`: where isolated tasks get their processes from.
    `tasks_per_thread`: after so many tasks a new thread replaces a worker's thread; None: never.
    """

    def __init__(
        self,
        size: int,
        logbook: Logbook,
        wake_foreman: Callable[[], None],
        fork_server: ForkServer | None = None,
        tasks_per_thread: int | None = None,
    ) -> None:
        self.size = size
        self.low_water = 0
        #: How many claims were ever handed over for threads.
        self.handed = 0
        #: When the Foreman is awake at the latest, by time.monotonic(): a deadline before it must wake him.
        self.foreman_wakes_at = 0.0
        self.foreman_sleeps = False
        self._logbook = logbook
        self._wake_foreman = wake_foreman
        self._fork_server = fork_server
        self._tasks_per_thread = tasks_per_thread or math.inf
        #: One for each thread that may exist: at most `size` tasks run at once.
        self._slots = threading.BoundedSemaphore(size)
        self._has_hired = False
        #: For what needs no thread.
        self.loop = Loop(logbook, self._report, lambda claim: self._outcome_of(claim, TaskHandle()))
        self._backlog: deque[tuple[int, Claim]] = deque()
        self._outcomes: deque[tuple[int, Outcome]] = deque()
        self._parked: list[threading.Lock] = []
        self._handles: list[TaskHandle] = []
        self._stuck: list[TaskHandle] = []
        self._is_watched = False  # some task has a deadline, or was told to end

    def hand_over(self, claims: list[tuple[int, Claim]]) -> None:
        """Let the crew run claims, each with the number of its logbook cell; those for the loop come last.

        Raises RuntimeError if not a single thread can be had; take_back() returns what was not started.
        """
        if claims and claims[-1][1].is_async:
            claims = self._hand_to_loop(claims)
        self._backlog.extend(claims)
        self.handed += len(claims)
        for _ in range(len(self._backlog)):
            if self._parked:
                self._parked.pop().release()
            elif not self._hire():
                break

    def _hand_to_loop(self, claims: list[tuple[int, Claim]]) -> list[tuple[int, Claim]]:
        """Let the loop run what is for it, and return the rest."""
        try:
            self.loop.hand_over([entered for entered in claims if entered[1].is_async])
        except BaseException:
            self._backlog.extend(claims)  # to be taken back
            raise
        return [entered for entered in claims if not entered[1].is_async]

    def _hire(self) -> bool:
        if not self._slots.acquire(blocking=False):
            return False
        thread = threading.Thread(target=self._work, name="snappea-worker", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # can't start new thread
            self._slots.release()
            if not self._has_hired:
                raise
            say_seldom(WARNING, "No more than %d worker threads: %s", len(self._handles), error)
            return False
        self._has_hired = True
        return True

    def capacity(self) -> int:
        """Return how many claims can be run at once: one for each worker, and those that are stuck."""
        return self.size + len(self._stuck)

    def stuck(self) -> int:
        """Return how many workers are stuck with a task that should have ended."""
        return len(self._stuck)

    def stuck_ids(self) -> list[int]:
        """Return the ids of the tasks that they are stuck with."""
        claims = [handle.task for handle in list(self._stuck)]
        return [claim.id for claim in claims if isinstance(claim, Claim)]

    def next_deadline(self) -> float:
        """Return when enforce_limits() is to be called again, by time.monotonic()."""
        if not self._is_watched:
            return math.inf
        deadlines = (min(handle.deadline, handle.interrupted_at + STUCK_AFTER) for handle in self._handles)
        return min(deadlines, default=math.inf)

    def enforce_limits(self) -> None:
        """Interrupt the tasks whose time is up, and replace the workers whose task does not end."""
        if not self._is_watched:
            return
        here = time.monotonic()
        self._is_watched = False
        for handle in list(self._handles):
            handle.enforce_limit(here)
            if handle.interrupted_at + STUCK_AFTER <= here:
                self._replace(handle)
        if any(min(handle.deadline, handle.interrupted_at) < math.inf for handle in self._handles):
            self._is_watched = True

    def _replace(self, handle: TaskHandle) -> None:
        self._stuck.append(handle)
        claim = handle.replace()
        if not isinstance(claim, Claim):  # it has just ended
            self._stuck.remove(handle)
            return
        self._slots.release()
        said = "%s #%d does not end. Another worker takes the place of its own; so many are stuck: %d"
        say(WARNING, said, clean(claim.task_name), claim.id, self.stuck())
        if self._backlog:
            self._hire()

    def backlog(self) -> int:
        """Return how many claims wait for a worker."""
        return len(self._backlog)

    def take_back(self, queue: str | None = None) -> list[tuple[int, Claim]]:
        """Return the claims that no worker has begun; they are the crew's no longer.

        `queue`: of this queue only, and those as well that the event loop has not begun.
        """
        if queue is None:
            return _drain(self._backlog)
        taken = []
        for entered in self._backlog.copy():
            if entered[1].queue == queue and self._withdraw(entered):
                taken.append(entered)
        return taken + self.loop.take_back(queue)

    def _withdraw(self, entered: tuple[int, Claim]) -> bool:
        """Take a claim out of the backlog; tell whether no worker has begun it."""
        try:
            self._backlog.remove(entered)
        except ValueError:
            return False
        return True

    def is_starting(self, queue: str) -> bool:
        """Tell whether a process is being started for a task of a queue."""
        return any(
            handle.is_starting(queue) for handle in list(self._handles) if isinstance(handle, Supervisor)
        )

    def revoke(self, cell: int, claim: Claim) -> None:
        """End a claim: at once if no worker has begun it, otherwise by TaskRevoked inside the task."""
        try:
            self._backlog.remove((cell, claim))
        except ValueError:
            if claim.is_async:
                self.loop.revoke(claim)
            elif any(handle.interrupt(claim) for handle in self._handles):
                self._is_watched = True
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
        handle = TaskHandle(self._note_deadline)
        self._handles.append(handle)
        left = self._tasks_per_thread
        try:
            while left > 0 and not handle.is_replaced:
                try:
                    cell, claim = self._backlog.popleft()
                except IndexError:
                    self._park(parking)
                else:
                    self._run(cell, claim, handle)
                    left -= 1
        finally:
            self._handles.remove(handle)
            execute.close_connections()
            if handle.is_replaced:
                self._stuck.remove(handle)
            else:
                self._slots.release()
                if self._backlog:  # handed over while all slots were taken
                    self._hire()

    def _note_deadline(self, deadline: float) -> None:
        self._is_watched = True
        if deadline < self.foreman_wakes_at:
            self.foreman_wakes_at = 0.0
            self._wake_foreman()

    def _run(self, cell: int, claim: Claim, handle: TaskHandle) -> None:
        self._logbook.note(cell, Note.BEGUN)
        try:
            outcome = self._outcome_of(claim, handle, cell)
        except BaseException as failure:  # of ours: no memory left, say
            outcome = execute.after_failure(claim, None, 0.0, failure)
        self._logbook.note(cell, execute.note_of(outcome))
        execute.tidy_connections()
        self._report(cell, outcome)

    def _report(self, cell: int, outcome: Outcome) -> None:
        self._outcomes.append((cell, outcome))
        if self.foreman_sleeps:
            self._wake_foreman_if_needed()

    def _outcome_of(self, claim: Claim, handle: TaskHandle, cell: int | None = None) -> Outcome:
        task = find_task_of(claim)
        return self._guard(claim, task, cell) if task and task.is_isolated else execute.run(claim, handle)

    def _guard(self, claim: Claim, task: TaskFunction[..., Any], cell: int | None) -> Outcome:
        """Have a claim run in a process of its own. What it tells is noted before it has quite ended."""

        def note(outcome: Outcome) -> None:
            if cell is not None:
                self._logbook.note(cell, execute.note_of(outcome))

        supervisor = Supervisor(claim, task, self._fork_server, note)
        self._handles.append(supervisor)
        try:
            return supervisor.run()
        finally:
            self._handles.remove(supervisor)

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
            execute.close_connections()
            parking.acquire()
        elif time.monotonic() - parked_at > AGED_AFTER:
            execute.tidy_connections()


def _drain(queue: "deque[T]") -> list[T]:
    """Take everything out, while others put in or take out as well."""
    taken = []
    try:
        while True:
            taken.append(queue.popleft())
    except IndexError:
        return taken


def most_at_once(settings: Settings) -> int:
    """Return how many tasks may run at the same time, all told."""
    return settings.NUM_WORKERS + settings.MAX_STUCK_WORKERS + 1 + settings.ASYNC_CONCURRENCY
