"""The event loop: runs `async def` tasks, many at a time, in one thread.

The thread starts with the first such task. Each task has its own context, and its own thread for
sync_to_async (the ORM).
"""

import asyncio
import contextvars
import math
import threading
import time
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from logging import DEBUG, ERROR, WARNING
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext

from ..errors import SoftTimeLimitExceeded, TaskRevoked
from ..log import clean, foreman, say, say_seldom
from ..queue.logbook import Logbook, Note
from ..queue.records import Claim, Fence, Outcome, about
from ..tasks.discovery import find_task_of, task_of
from ..tasks.function import TaskFunction
from . import execute
from .cleanup import TidyThreads, close_caches, close_connections
from .limits import Ending

#: How long to wait for the asyncio tasks that a task left running, in seconds.
LEFT_BEHIND = 1.0
#: How long a task may block the loop before a warning is logged, in seconds.
BLOCKED_AFTER = 2.0

#: The asyncio tasks that the task of this context has started.
_started: contextvars.ContextVar["set[asyncio.Task[Any]]"] = contextvars.ContextVar("snappea_started")


class Slot:
    """A task on an event loop, and the exception that ends it."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        #: The claim's asyncio.Task, kept alive here; `task` is the same while the task function runs.
        self.runner: asyncio.Task[None] | None = None
        self.task: asyncio.Task[Any] | None = None
        #: The exception that ends the task; `pending` is the same until it is raised.
        self.ending: Ending | None = None
        self.pending: Ending | None = None

    def raise_in_task(self, ending: Ending) -> None:
        """Raise an exception in the coroutine, where it waits; nothing if it was revoked before."""
        if self.ending is TaskRevoked:
            return
        self.ending = self.pending = ending
        if self.task:
            self.task.cancel()

    def arriving(self, raised: BaseException) -> BaseException:
        """Return the exception to raise in the coroutine instead of asyncio's."""
        if not self.pending or not isinstance(raised, asyncio.CancelledError):
            return raised
        ending, self.pending = self.pending, None
        if self.task:
            self.task.uncancel()  # or asyncio.timeout() would treat it as its own
        return ending()


class EventLoop:
    """Runs claims of asynchronous tasks. The Foreman calls its methods.

    `report`: called with each outcome, in the loop's thread. `call`: runs, in another thread, a claim of a
    function that was asynchronous when it was enqueued, but no longer is.
    """

    def __init__(
        self, logbook: Logbook, report: Callable[[int, Outcome], None], call: Callable[[int, Claim], Outcome]
    ) -> None:
        self._logbook = logbook
        self._report = report
        self._call = call
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots: dict[int, Slot] = {}
        #: Claims that have neither begun nor been taken back, by fence, because cells are reused.
        self._waiting: dict[Fence, tuple[int, Claim]] = {}
        self._pinged_at = 0.0  # 0 once the loop has answered

    def hand_over(self, claims: list[tuple[int, Claim]]) -> None:
        """Run claims, each with its logbook cell. Raises RuntimeError if no thread could be started."""
        if self._loop is None:
            self._loop = self._start()
        self._waiting |= {claim.fence: (cell, claim) for cell, claim in claims}
        try:
            self._loop.call_soon_threadsafe(self._begin, claims)
        except BaseException:  # no memory left
            for _cell, claim in claims:
                self._withdraw(claim)
            raise

    def take_back(self, queue: str | None = None) -> list[tuple[int, Claim]]:
        """Return the claims that have not begun, of a `queue` or of all. They will not run here."""
        here = list(self._waiting.items())
        waiting = [fence for fence, (_cell, claim) in here if queue in (None, claim.queue)]
        return [entered for fence in waiting if (entered := self._waiting.pop(fence, None))]

    def revoke(self, claim: Claim) -> None:
        """Raise TaskRevoked in the task of a claim, if it is here."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._revoke, claim)

    def look(self) -> None:
        """Log a warning if a task blocks the loop. Called once a second or so while a task runs there."""
        if self._loop is None:
            return
        here = time.monotonic()
        if not self._pinged_at:
            self._pinged_at = here
            self._loop.call_soon_threadsafe(self._answer)
        elif here - self._pinged_at > BLOCKED_AFTER:
            running = asyncio.current_task(self._loop)
            claim = next((one.claim for one in list(self._slots.values()) if one.task is running), None)
            what, extra = repr(running), None
            if claim:
                what, extra = f"{clean(claim.task_name)} #{claim.id}", about(claim)
            said = "The event loop is blocked by %s, which does not await"
            say_seldom(WARNING, said, what, extra=extra)

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_default_executor(TidyThreads(thread_name_prefix="snappea-to-thread"))
        try:
            threading.Thread(target=_run_forever, args=(loop,), name="snappea-loop", daemon=True).start()
        except RuntimeError:
            loop.close()
            raise
        return loop

    # in the loop's thread

    def _begin(self, claims: list[tuple[int, Claim]]) -> None:
        for cell, claim in claims:
            try:
                slot = self._slots[cell] = Slot(claim)
                run = self._run(cell, slot)
                slot.runner = asyncio.get_running_loop().create_task(run, context=contextvars.Context())
            except BaseException as failure:  # no memory left: the other claims must run all the same
                if self._withdraw(claim):
                    self._end(cell, execute.fail(claim, None, 0.0, failure))

    def _answer(self) -> None:
        self._pinged_at = 0.0

    def _revoke(self, claim: Claim) -> None:
        for slot in self._slots.values():
            if slot.claim is claim:
                slot.raise_in_task(TaskRevoked)

    def _withdraw(self, claim: Claim) -> bool:
        """Return whether a claim was waiting; it no longer is."""
        return self._waiting.pop(claim.fence, None) is not None

    async def _run(self, cell: int, slot: Slot) -> None:
        """Run a claim unless it was taken back."""
        claim = slot.claim
        task = find_task_of(claim)
        if not self._withdraw(claim):
            if self._slots.get(cell) is slot:
                del self._slots[cell]
            return
        self._logbook.note(cell, Note.BEGUN)
        try:
            if task is None or task.is_async:
                outcome = await execute_on_loop(slot, task=task)
            else:
                outcome = await asyncio.to_thread(self._call, cell, claim)
        except BaseException as failure:  # in our own code, such as "can't start new thread"
            outcome = execute.fail(claim, None, 0.0, failure)
        self._end(cell, outcome)

    def _end(self, cell: int, outcome: Outcome) -> None:
        self._logbook.note(cell, execute.note_of(outcome))
        self._slots.pop(cell, None)
        self._report(cell, outcome)


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.set_task_factory(_make_task)
    while True:
        try:
            loop.run_forever()
        except BaseException as error:  # such as SystemExit in an asyncio task that a task has started
            say(ERROR, "Something on the event loop raised %r", error)


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> "asyncio.Task[Any]":
    """Make an asyncio.Task, and note it for the Snappea task that started it, which it must not outlive."""
    made: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    started = _started.get(None)
    if started is not None:
        started.add(made)
        made.add_done_callback(started.discard)
    return made


def execute_alone(slot: Slot, task: TaskFunction[..., Any], number: int, deadline: float) -> Outcome:
    """Run execute_on_loop() on a new loop in the main thread, where the signal `number` revokes the task."""

    async def main() -> Outcome:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(_make_task)
        loop.add_signal_handler(number, slot.raise_in_task, TaskRevoked)
        return await execute_on_loop(slot, deadline, task)

    return asyncio.run(main())


async def execute_on_loop(
    slot: Slot, deadline: float = math.inf, task: TaskFunction[..., Any] | None = None
) -> Outcome:
    """Await a claimed task in the current asyncio.Task, and return its outcome.

    `deadline`: when it is killed, by time.monotonic(). `task`: the claim's, if it was looked up already.
    """
    claim = slot.claim
    if foreman.isEnabledFor(DEBUG):
        execute.log_start(claim)
    limit: float | None = None
    result: str | None = None
    failure: BaseException | None = None
    timer: asyncio.TimerHandle | None = None
    threads = ThreadSensitiveContext()
    SyncToAsync.thread_sensitive_context.set(threads)
    started: set[asyncio.Task[Any]] = set()
    _started.set(started)
    this, began = asyncio.current_task(), time.monotonic()
    assert this
    try:
        task = task or task_of(claim)
        limit = task.soft_time_limit(claim.queue)
        if limit is not None:
            deadline = min(deadline, began + limit)
            timer = asyncio.get_running_loop().call_later(limit, slot.raise_in_task, SoftTimeLimitExceeded)
        slot.task = this
        if slot.pending:  # revoked before it began
            raise slot.pending
        _result, result = await _endable(execute.call_on_loop(task, claim, deadline), slot)
    except BaseException as raised:  # SystemExit too, which would end the loop
        failure = raised
    slot.task = None
    if this.cancelling():  # the task has cancelled itself in its last step: it fails
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as cancelled:
            failure = cancelled if failure is None else failure
    duration, is_revoked = time.monotonic() - began, slot.ending is TaskRevoked
    if timer:
        timer.cancel()
    await _clean_up(claim, list(started), threads)
    if failure is None:
        return Outcome(claim, duration, result=result)
    return execute.fail(claim, task, duration, failure, limit, is_revoked)


async def _clean_up(
    claim: Claim, started: "list[asyncio.Task[Any]]", threads: ThreadSensitiveContext
) -> None:
    if started:
        said = "%s #%d ended and left %d asyncio tasks running; they are cancelled."
        say(WARNING, said, clean(claim.task_name), claim.id, len(started), extra=about(claim))
        for one in started:
            one.cancel()
        with suppress(asyncio.CancelledError):  # of the task itself
            await asyncio.wait(started, timeout=LEFT_BEHIND)
    close_caches(contextvars.copy_context())
    if executor := SyncToAsync.context_to_thread_executor.pop(threads, None):
        executor.submit(close_connections)
        executor.shutdown(wait=False)  # even if that thread is blocked: the loop must go on


@types.coroutine
def _endable(coroutine: Coroutine[Any, Any, Any], slot: Slot) -> Generator[Any, Any, Any]:
    """Run a coroutine to its end, and raise the exception that ends it as itself, not as CancelledError."""
    error: BaseException | None = None
    got: Any = None
    while True:
        try:
            waits_for = coroutine.send(got) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        error = None
        try:
            got = yield waits_for
        except BaseException as raised:
            error = slot.arriving(raised)
