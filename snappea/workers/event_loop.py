"""The Loop: `async def` tasks, many at a time, on one event loop in a thread of its own.

Its thread is made when the first such task comes. Each task has a context of its own, and a thread of its
own for what it calls by sync_to_async (the ORM), if it does.
"""

import asyncio
import contextvars
import math
import threading
import time
import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from logging import ERROR, WARNING
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext

from ..errors import SoftTimeLimitExceeded, TaskRevoked
from ..log import clean, say, say_seldom
from ..queue.logbook import Logbook, Note
from ..queue.records import Claim, Outcome
from ..signals import task_started, task_succeeded, tell
from ..tasks.arguments import decode
from ..tasks.context import begin
from ..tasks.registry import TaskFunction, find_task_of, task_of
from . import execute
from .cleanup import TidyThreads, close_caches
from .limits import Ending

#: How long a task that has ended may leave others behind that it started, in seconds.
LEFT_BEHIND = 1.0
#: How long a task may keep the loop from all others before that is said, in seconds.
BLOCKED_AFTER = 2.0

_offspring: contextvars.ContextVar["set[asyncio.Task[Any]]"] = contextvars.ContextVar("snappea_offspring")


class _TakenBack(BaseException):
    """A claim does not begin after all."""


class Slot:
    """Where a coroutine runs, and by which exception it was told to end.

    `may_begin`: called when its task is about to begin; tells whether it still may.
    """

    def __init__(self, claim: Claim, may_begin: Callable[[], bool] = lambda: True) -> None:
        self.claim = claim
        self._may_begin = may_begin
        self.has_begun = False
        #: What runs it, and what sees to that.
        self.supervisor: asyncio.Task[None] | None = None
        self.task: asyncio.Task[tuple[str | None, BaseException | None]] | None = None
        #: By what it was told to end, and what of that has not arrived yet.
        self.ending: Ending | None = None
        self.pending: Ending | None = None

    def begin(self) -> bool:
        """Tell, right before its task begins, whether it still may."""
        self.has_begun = self._may_begin()
        return self.has_begun

    def end(self, ending: Ending) -> None:
        """Raise an exception in the coroutine, where it waits; nothing, if it was revoked before."""
        if self.ending is TaskRevoked or (self.task and self.task.done()):
            return
        self.ending = self.pending = ending
        if self.task:
            self.task.cancel()

    def arriving(self, raised: BaseException) -> BaseException:
        """Return what is to be raised in the coroutine instead of what asyncio raises."""
        if not self.pending or not isinstance(raised, asyncio.CancelledError):
            return raised
        ending, self.pending = self.pending, None
        if self.task:
            self.task.uncancel()  # otherwise asyncio.timeout() would think that it was meant
        return ending()


class Loop:
    """Runs claims of asynchronous tasks. Its methods are the Foreman's to call.

    `report` is called with each outcome, in the loop's thread; `run_elsewhere`, in another thread, with a
    claim whose function was asynchronous when it was enqueued, and is not any more.
    """

    def __init__(
        self,
        logbook: Logbook,
        report: Callable[[int, Outcome], None],
        run_elsewhere: Callable[[Claim], Outcome],
    ) -> None:
        self._logbook = logbook
        self._report = report
        self._run_elsewhere = run_elsewhere
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots: dict[int, Slot] = {}
        #: Handed over, and neither begun nor taken back; by id and claims, as a cell can be used again.
        self._waiting: dict[tuple[int, int], tuple[int, Claim]] = {}
        self._asked_at = 0.0  # when the loop was asked whether it is there, if it has not answered

    def hand_over(self, claims: list[tuple[int, Claim]]) -> None:
        """Let it run claims, each with the number of its logbook cell.

        Raises RuntimeError if there is no thread to be had.
        """
        if self._loop is None:
            self._loop = self._start()
        self._waiting |= {(claim.id, claim.claims): (cell, claim) for cell, claim in claims}
        try:
            self._loop.call_soon_threadsafe(self._begin, claims)
        except BaseException:  # no memory left
            for _cell, claim in claims:
                self._withdraw(claim)
            raise

    def take_back(self, queue: str) -> list[tuple[int, Claim]]:
        """Return the claims of a queue that have not begun; they are the loop's no longer."""
        waiting = [fence for fence, (_cell, claim) in list(self._waiting.items()) if claim.queue == queue]
        return [entered for fence in waiting if (entered := self._waiting.pop(fence, None))]

    def revoke(self, claim: Claim) -> None:
        """Raise TaskRevoked in a claim, if it has it in hand."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._revoke, claim)

    def look(self) -> None:
        """Log it if a task blocks the loop. Call it once a second or so while a task runs there."""
        if self._loop is None:
            return
        here = time.monotonic()
        if not self._asked_at:
            self._asked_at = here
            self._loop.call_soon_threadsafe(self._answer)
        elif here - self._asked_at > BLOCKED_AFTER:
            say_seldom(WARNING, "The event loop is blocked; it is %s that does not await", self._at_work())

    def _at_work(self) -> str:
        assert self._loop
        now_at_work = asyncio.current_task(self._loop)
        claims = (slot.claim for slot in list(self._slots.values()) if slot.task is now_at_work)
        return next((f"{clean(claim.task_name)} #{claim.id}" for claim in claims), repr(now_at_work))

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
                slot = self._slots[cell] = Slot(claim, partial(self._begins, cell, claim))
                slot.supervisor = asyncio.ensure_future(self._run(cell, slot))
            except BaseException as failure:  # no memory left: the other claims must not be lost with it
                if self._withdraw(claim):
                    self._end(cell, execute.after_failure(claim, None, 0.0, failure))

    def _answer(self) -> None:
        self._asked_at = 0.0

    def _revoke(self, claim: Claim) -> None:
        for slot in self._slots.values():
            if slot.claim is claim:
                slot.end(TaskRevoked)

    def _withdraw(self, claim: Claim) -> bool:
        """Tell, once, that a claim no longer waits here; False if it was taken back or has begun."""
        return self._waiting.pop((claim.id, claim.claims), None) is not None

    def _begins(self, cell: int, claim: Claim) -> bool:
        """Note that a task begins, unless its claim was taken back."""
        if not self._withdraw(claim):
            return False
        self._logbook.note(cell, Note.BEGUN)
        return True

    async def _run(self, cell: int, slot: Slot) -> None:
        try:
            outcome = await self._outcome_of(slot)
        except _TakenBack:
            if self._slots.get(cell) is slot:
                del self._slots[cell]
            return
        except BaseException as failure:  # of ours: no thread to be had, say
            outcome = execute.after_failure(slot.claim, None, 0.0, failure)
        self._end(cell, outcome)

    async def _outcome_of(self, slot: Slot) -> Outcome:
        """Run a claim and return what became of it. Raises _TakenBack if it was before it began."""
        task = find_task_of(slot.claim)
        if task is None or task.is_async:
            outcome = await run(slot)
        elif slot.begin():
            outcome = await asyncio.to_thread(self._run_elsewhere, slot.claim)
        else:
            raise _TakenBack
        if not slot.has_begun and not self._withdraw(slot.claim):
            raise _TakenBack  # just before it failed, being unknown or revoked
        return outcome

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
        except BaseException as error:  # asyncio lets a SystemExit pass, in something that a task started
            say(ERROR, "Something on the event loop raised %r", error)


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **how: Any) -> "asyncio.Task[Any]":
    """Make an asyncio.Task, and note whose it is, so that none outlives the task that started it."""
    made: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **how)
    offspring = _offspring.get(None)
    if offspring is not None:
        offspring.add(made)
        made.add_done_callback(offspring.discard)
    return made


def run_alone(slot: Slot, number: int, deadline: float) -> Outcome:
    """Do as run() on a loop of its own, in the main thread, where a signal of this number revokes it."""

    async def main() -> Outcome:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(_make_task)
        loop.add_signal_handler(number, slot.end, TaskRevoked)
        return await run(slot, deadline)

    return asyncio.run(main())


async def run(slot: Slot, deadline: float = math.inf) -> Outcome:
    """Run a claimed task on this loop and return what became of it, whatever that is.

    `deadline`: when it is killed, by time.monotonic().
    """
    claim = slot.claim
    execute.say_start(claim)
    task: TaskFunction[..., Any] | None = None
    limit: float | None = None
    result, failure = None, None
    began = time.monotonic()
    try:
        task = task_of(claim)
        limit = task.soft_time_limit(claim.queue)
        result, failure = await _run_apart(task, slot, limit, deadline)
    except BaseException as raised:
        failure = raised
    if isinstance(failure, _TakenBack):
        raise failure
    duration = time.monotonic() - began
    if failure is None:
        return Outcome(claim, duration, result=result)
    is_revoked = slot.ending is TaskRevoked
    return execute.outcome_of_failure(claim, task, duration, failure, is_revoked, limit)


async def _run_apart(
    task: TaskFunction[..., Any], slot: Slot, limit: float | None, deadline: float
) -> tuple[str | None, BaseException | None]:
    """Run it in an asyncio.Task and a context of its own; return its result or its failure."""
    loop = asyncio.get_running_loop()
    context = contextvars.Context()
    offspring: set[asyncio.Task[Any]] = set()
    threads = ThreadSensitiveContext()
    context.run(SyncToAsync.thread_sensitive_context.set, threads)
    if limit is not None:
        deadline = min(deadline, time.monotonic() + limit)
    driven = slot.task = loop.create_task(_drive(task, slot, deadline, offspring), context=context)
    if slot.pending:  # revoked before it began
        driven.cancel()
    alarm = loop.call_later(limit, slot.end, SoftTimeLimitExceeded) if limit is not None else None
    try:
        return await driven
    except asyncio.CancelledError:  # before its first step
        return None, slot.ending() if slot.ending else asyncio.CancelledError()
    finally:
        if alarm:
            alarm.cancel()
        if offspring:
            await _end_offspring(slot.claim, offspring)
        close_caches(context)
        if executor := SyncToAsync.context_to_thread_executor.pop(threads, None):
            executor.submit(execute.close_connections)
            executor.shutdown(wait=False)  # whatever still blocks it there: the loop must go on


async def _end_offspring(claim: Claim, offspring: "set[asyncio.Task[Any]]") -> None:
    left = list(offspring)
    say(WARNING, "%s #%d left %d running that it started", clean(claim.task_name), claim.id, len(left))
    for one in left:
        one.cancel()
    await asyncio.wait(left, timeout=LEFT_BEHIND)


async def _drive(
    task: TaskFunction[..., Any], slot: Slot, deadline: float, offspring: "set[asyncio.Task[Any]]"
) -> tuple[str | None, BaseException | None]:
    _offspring.set(offspring)
    try:
        return await _interruptible(_call(task, slot, deadline), slot), None
    except BaseException as failure:
        return None, failure  # not raised: asyncio would end the loop for a SystemExit


@types.coroutine
def _interruptible(coroutine: Coroutine[Any, Any, Any], slot: Slot) -> Generator[Any, Any, Any]:
    """Run a coroutine to its end. What it was told to end by arrives in it as itself."""
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


async def _call(task: TaskFunction[..., Any], slot: Slot, deadline: float) -> str | None:
    """Call the function, and return its result as JSON if that is to be kept."""
    if not slot.begin():
        raise _TakenBack
    claim = slot.claim
    args, kwargs = decode(claim.args, claim.kwargs)
    begin(claim, deadline)
    tell(task_started, task, id=claim.id, attempt=claim.attempts)
    result = await task.run_on_loop(args, kwargs)
    encoded = execute.result_to_keep(claim, result)
    tell(task_succeeded, task, id=claim.id, result=result)
    return encoded
