"""The worker pool: threads that run claims, a backlog of claims, and the outcomes.

Waking a thread is slow, above all on a virtual machine with idle cores. So a worker takes its next claim from
the backlog without blocking, and parks only when there is none. The Foreman is woken only if it sleeps and
is needed.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from logging import WARNING
from typing import TypeVar

from ..conf import Settings
from ..log import clean, say, say_seldom
from ..queue.logbook import Logbook, Note
from ..queue.records import Claim, Outcome, about
from ..tasks.discovery import find_task_of
from . import execute
from .cleanup import close_connections, tidy_connections
from .event_loop import EventLoop
from .limits import TaskHandle
from .processes.fork_server import ForkServer
from .processes.supervisor import Supervisor

T = TypeVar("T")

#: A worker is stuck, and is replaced, if its task still runs this many seconds after it should have ended.
STUCK_AFTER = 5.0
#: An idle thread closes its connections after this many seconds, so that WAL files can be checkpointed.
IDLE_AFTER = 10.0
#: After this many idle seconds, a thread checks its connections (CONN_MAX_AGE) before the next task.
AGED_AFTER = 1.0


class WorkerPool:
    """Up to `size` threads that run claims. The Foreman calls all public methods.

    A worker calls `wake_foreman` if `foreman_sleeps` is set and at most `low_water` claims wait.
    `fork_server` starts processes for isolated tasks. A thread is replaced after `tasks_per_thread`.
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
        #: How many claims were ever handed over to threads.
        self.handed = 0
        #: Until when the Foreman sleeps, by time.monotonic(): an earlier deadline must wake it.
        self.foreman_wakes_at = 0.0
        self.foreman_sleeps = False
        self._logbook = logbook
        self._wake_foreman = wake_foreman
        self._fork_server = fork_server
        self._tasks_per_thread = tasks_per_thread or math.inf
        #: One for each thread that may run: at most `size` tasks run at once.
        self._slots = threading.BoundedSemaphore(size)
        self._has_started_one = False
        self.loop = EventLoop(logbook, self._report, self._call_for_loop)
        #: The claims that wait for a worker, and the outcomes that wait for the Foreman.
        self.backlog: deque[tuple[int, Claim]] = deque()
        self.outcomes: deque[tuple[int, Outcome]] = deque()
        self._parked: list[threading.Lock] = []
        self._handles: list[TaskHandle] = []
        #: The workers with a task that should have ended; each was replaced.
        self.stuck: list[TaskHandle] = []
        self._supervisors: list[Supervisor] = []
        #: Whether a task has a deadline, or was told to end.
        self.is_watched = False

    def hand_over(self, claims: list[tuple[int, Claim]]) -> None:
        """Run claims, each with the number of its logbook cell. Those for the event loop must come last.

        Raises RuntimeError if not a single thread can be started; take_back() returns what has not begun.
        """
        if claims and claims[-1][1].is_async:
            try:
                self.loop.hand_over([entered for entered in claims if entered[1].is_async])
            except BaseException:
                self.backlog.extend(claims)  # to be taken back
                raise
            claims = [entered for entered in claims if not entered[1].is_async]
        self.backlog.extend(claims)
        self.handed += len(claims)
        for _ in range(len(self.backlog)):
            if self._parked:
                self._parked.pop().release()
            elif not self._start_worker():
                break

    def _start_worker(self) -> bool:
        if not self._slots.acquire(blocking=False):
            return False
        thread = threading.Thread(target=self._work, name="snappea-worker", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # can't start new thread
            self._slots.release()
            if not self._has_started_one:
                raise
            say_seldom(WARNING, "No more than %d worker threads: %s", len(self._handles), error)
            return False
        self._has_started_one = True
        return True

    def stuck_ids(self) -> list[int]:
        """Return the ids of the tasks that workers are stuck with."""
        claims = [handle.task for handle in list(self.stuck)]
        return [claim.id for claim in claims if isinstance(claim, Claim)]

    def next_deadline(self) -> float:
        """Return when to call enforce_limits(), by time.monotonic()."""
        if not self.is_watched:
            return math.inf
        deadlines = (min(handle.deadline, handle.raised_at + STUCK_AFTER) for handle in self._handles)
        return min(deadlines, default=math.inf)

    def enforce_limits(self) -> None:
        """End the tasks that exceed a limit, and replace workers with a task that does not end."""
        if not self.is_watched:
            return
        here = time.monotonic()
        self.is_watched = False
        for handle in list(self._handles):
            handle.enforce_limit(here)
            if handle.raised_at + STUCK_AFTER <= here:
                self._replace(handle)
        if any(min(handle.deadline, handle.raised_at) < math.inf for handle in self._handles):
            self.is_watched = True

    def _replace(self, handle: TaskHandle) -> None:
        self.stuck.append(handle)
        claim = handle.replace()
        if not isinstance(claim, Claim):  # it has just ended
            self.stuck.remove(handle)
            return
        self._slots.release()
        said = "%s #%d does not end: a new worker thread replaces the stuck one. Stuck workers: %d"
        say(WARNING, said, clean(claim.task_name), claim.id, len(self.stuck), extra=about(claim))
        if self.backlog:
            self._start_worker()

    def take_back(self, queue: str | None = None) -> list[tuple[int, Claim]]:
        """Return the claims that no worker has begun. They will not run here.

        `queue`: only claims of this queue, also those that the event loop has not begun.
        """
        if queue is None:
            return drain(self.backlog)
        waiting = [entered for entered in self.backlog.copy() if entered[1].queue == queue]
        return [entered for entered in waiting if self._withdraw(entered)] + self.loop.take_back(queue)

    def _withdraw(self, entered: tuple[int, Claim]) -> bool:
        """Remove a claim from the backlog, and return whether it was there."""
        try:
            self.backlog.remove(entered)
        except ValueError:
            return False
        return True

    def is_starting(self, queue: str) -> bool:
        """Return whether a process is being started for a task of a queue."""
        return any(supervisor.is_starting(queue) for supervisor in list(self._supervisors))

    def revoke(self, cell: int, claim: Claim) -> None:
        """End a claim: at once if no worker has begun it, otherwise by TaskRevoked inside the task."""
        if self._withdraw((cell, claim)):
            reason = "TaskRevoked: before it began"
            self.outcomes.append((cell, Outcome(claim, 0.0, reason, reason, is_revoked=True)))
        elif claim.is_async:
            self.loop.revoke(claim)
        elif any(one.revoke(claim) for one in list(self._supervisors)) or any(
            handle.revoke(claim) for handle in list(self._handles)
        ):
            self.is_watched = True

    def needs_foreman(self) -> bool:
        """Return whether there are outcomes to settle and a worker is idle or soon will be."""
        return bool(self.outcomes) and (len(self.backlog) <= self.low_water or bool(self._parked))

    # in the workers' threads

    def _work(self) -> None:
        parking = threading.Lock()
        parking.acquire()
        handle = TaskHandle(self._note_deadline)
        self._handles.append(handle)
        left = self._tasks_per_thread
        try:
            while left > 0 and not handle.is_replaced:
                try:
                    cell, claim = self.backlog.popleft()
                except IndexError:
                    self._park(parking)
                else:
                    self._run(cell, claim, handle)
                    left -= 1
        finally:
            self._handles.remove(handle)
            close_connections()
            if handle.is_replaced:
                self.stuck.remove(handle)
            else:
                self._slots.release()
                if self.backlog:  # filled while all slots were taken
                    self._start_worker()

    def _note_deadline(self, deadline: float) -> None:
        self.is_watched = True
        if deadline < self.foreman_wakes_at:
            self.foreman_wakes_at = 0.0
            self._wake_foreman()

    def _run(self, cell: int, claim: Claim, handle: TaskHandle) -> None:
        self._logbook.note(cell, Note.BEGUN)
        try:
            outcome = self._outcome_of(cell, claim, handle)
        except BaseException as failure:  # in our own code, such as "no memory left"
            outcome = execute.fail(claim, None, 0.0, failure)
        self._logbook.note(cell, execute.note_of(outcome))
        tidy_connections()
        self._report(cell, outcome)

    def _call_for_loop(self, cell: int, claim: Claim) -> Outcome:
        return self._outcome_of(cell, claim, TaskHandle())

    def _outcome_of(self, cell: int, claim: Claim, handle: TaskHandle) -> Outcome:
        """Run a claim, in its own process if the task is isolated."""
        task = find_task_of(claim)
        if task is None or not task.is_isolated:
            return execute.execute(claim, handle, task)

        def note(outcome: Outcome) -> None:
            self._logbook.note(cell, execute.note_of(outcome))

        supervisor = Supervisor(claim, task, self._fork_server, note)
        self._supervisors.append(supervisor)
        try:
            return supervisor.run()
        finally:
            self._supervisors.remove(supervisor)

    def _report(self, cell: int, outcome: Outcome) -> None:
        self.outcomes.append((cell, outcome))
        if self.foreman_sleeps:
            self._wake_foreman_if_needed()

    def _wake_foreman_if_needed(self) -> None:
        if self.needs_foreman():
            self.foreman_sleeps = False
            self._wake_foreman()

    def _park(self, parking: threading.Lock) -> None:
        """Wait until the backlog may contain a claim."""
        self._parked.append(parking)
        if self.backlog:  # filled before the Foreman could see that this worker is parked
            try:
                self._parked.remove(parking)
                return
            except ValueError:
                pass  # the Foreman saw it: the lock is released, or about to be
        if self.foreman_sleeps:
            self._wake_foreman_if_needed()
        parked_at = time.monotonic()
        if not parking.acquire(timeout=IDLE_AFTER):
            close_connections()
            parking.acquire()
        elif time.monotonic() - parked_at > AGED_AFTER:
            tidy_connections()


def drain(queue: "deque[T]") -> list[T]:
    """Take all items of a deque, while other threads may add or take some."""
    taken = []
    try:
        while True:
            taken.append(queue.popleft())
    except IndexError:
        return taken


def most_at_once(settings: Settings) -> int:
    """Return how many tasks may run at the same time, stuck ones included."""
    return settings.NUM_WORKERS + settings.MAX_STUCK_WORKERS + 1 + settings.ASYNC_CONCURRENCY
