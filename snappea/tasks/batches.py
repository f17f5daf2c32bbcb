"""`snappea.batch()`: tasks that belong together, and the calls that follow when they have ended."""

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from django.db import transaction

from ..conf import collects
from ..errors import refuse_event_loop
from ..models import Task
from ..queue import batches, operations
from ..queue.batches import Plan
from ..queue.callbacks import AWAITS_RESULT, packed, unpacked, with_result
from ..queue.records import Call
from ..queue.states import UNSUCCESSFUL
from . import engine
from .arguments import encode_result
from .calls import Signature
from .engine import Caller, Engine
from .function import TaskFunction, registry
from .results import AsyncResult

R = TypeVar("R")
#: What may follow: a task, or a call of it.
Callback = TaskFunction[..., Any] | Signature | None


class BatchProgress(NamedTuple):
    """How far a batch is, with the batches in it: numbers of members.

    `failed` counts those that failed, were interrupted, or were cancelled while they ran; `gone` those that
    expired, or were cancelled, deleted or discarded.
    """

    total: int
    succeeded: int
    failed: int
    waiting: int
    running: int
    gone: int

    @property
    def is_finished(self) -> bool:
        """Whether all members have ended."""
        return not (self.waiting or self.running)


class MemberResult(AsyncResult):
    """The result of a call in the block of a batch. Its id is known after the block."""

    def __init__(self) -> None:
        pass

    def __repr__(self) -> str:
        return f"AsyncResult({self.__dict__.get('id')})"

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("Calls in the block of a batch are enqueued at its end: read the result after it.")

    def become(self, accepted: AsyncResult) -> None:
        """Become the result of the enqueued call."""
        self.id, self._result = accepted.id, accepted._result


class Collector(Engine):
    """Collects the calls of a `with` block. The engine accepts all of them together."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        #: The databases that must commit first.
        self.using: set[str] = set()

    def __enter__(self) -> Self:
        self._token = engine.collecting.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        engine.collecting.reset(self._token)

    def submit(
        self, call: Call, caller: Caller[Any], moment: str | None = None, is_committed: bool = False
    ) -> Any:
        """Collect a call."""
        if not isinstance(caller, TaskFunction):
            raise TypeError(f"{call.task_name} cannot join a batch: declare it with @task of Snappea.")
        result = MemberResult()
        self.plan.members.append((call, caller, result))
        return result

    def submit_many(self, calls: Sequence[Call], caller: Caller[Any]) -> list[Any]:
        """Collect many calls."""
        return [self.submit(call, caller) for call in calls]

    def submit_on_commit(self, call: Call, caller: Caller[Any], using: str) -> None:
        """Collect a call, and let the whole block wait for the commit."""
        self.using.add(using)
        self.submit(call, caller)

    def broadcast(self, call: Call, caller: Caller[Any]) -> Any:
        """Refuse it: the calls for Foremen that leave are dropped."""
        raise TypeError(f"{call.task_name}.broadcast() cannot be used in a batch.")

    def add(self, part: "Collector") -> None:
        """Take over a batch in this one."""
        self.plan.parts.append(part.plan)
        self.using |= part.using

    def enqueue_all(self) -> None:
        """Enqueue everything, now or when the transactions commit."""
        if self.using:
            transaction.on_commit(self.enqueue_all, using=self.using.pop())
            return
        engine.choose().submit_batch(self)
        for plan in self.plan.family():
            for (_call, task, result), written in zip(plan.members, plan.written, strict=False):
                result.become(task.accepted(*written))

    def run_eagerly(self) -> None:
        """Run the calls, and then the callbacks."""
        _run(self.plan)


def _run(plan: Plan) -> None:
    plan.id = 0
    value, name = None, ""
    try:
        for call, task, result in plan.members:
            result.become(task.run_eagerly(call))
            value, name = result.get(), task.name
        for part in plan.parts:
            _run(part)
    except Exception:
        for text in plan.callbacks[1:]:
            _run_chain(text)
        raise
    for text in plan.callbacks[::2]:
        _run_chain(text, value, name)


def _run_chain(text: str | None, value: Any = None, name: str = "") -> None:
    """Run a packed call and those that follow it. `value`: what the call before, `name`, has returned."""
    while text:
        if text.startswith(AWAITS_RESULT):
            text = with_result(text, encode_result(value, name))
        call, text = unpacked(text)
        name = call.task_name
        value = registry[name].run_eagerly(call).get()


class Batch:
    """A batch that exists: `Batch(id)`. In a `with` block, calls are added to it.

    >>> with snappea.Batch(7):
    ...     resize.delay(photo.pk)
    """

    def __init__(self, id: int) -> None:
        self._plan = Plan(id=id)
        self._is_entered = True
        self._open: list[Collector] = []

    @classmethod
    def _of(cls, plan: Plan) -> Self:
        made = cls(0)
        made._plan, made._is_entered = plan, False
        return made

    def __repr__(self) -> str:
        return f"Batch({self._plan.id})"

    @property
    def id(self) -> int:
        """The primary key of its row. Raises RuntimeError if it is not enqueued yet."""
        if self._plan.id is None:
            raise RuntimeError(
                "A batch is enqueued at the end of its block, or by the commit: its id is unknown."
            )
        return self._plan.id

    def __enter__(self) -> Self:
        refuse_event_loop("batch")
        if self._is_entered:
            self._plan = Plan(id=self.id)
        self._is_entered = True
        self._open.append(Collector(self._plan).__enter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        collector = self._open.pop()
        collector.__exit__()
        if kind is not None:
            return
        outer = engine.collecting.get()
        if isinstance(outer, Collector):
            outer.add(collector)
        else:
            collector.enqueue_all()

    def submit(self, call: Call, caller: Caller[R]) -> R:
        """Accept a call with `batch=...`."""
        return self.submit_many([call], caller)[0]

    def submit_many(self, calls: Sequence[Call], caller: Caller[R]) -> list[R]:
        """Accept many: with those of the open block, even in another thread, or immediately."""
        if self._open:
            return self._open[-1].submit_many(calls, caller)
        with Batch(self.id) as other:
            return other._open[-1].submit_many(calls, caller)

    def progress(self) -> BatchProgress:
        """Return how far it is. Raises LookupError if its row is gone.

        >>> batch.progress()
        BatchProgress(total=100, succeeded=97, failed=1, waiting=0, running=2, gone=0)
        """
        found = (_memory() or batches).counts(self.id)
        total, succeeded = found["total"], found["succeeded"]
        waiting, running = found["ready"] + found["scheduled"], found["running"]
        failed = sum(found[status] for status in UNSUCCESSFUL)
        gone = max(0, total - succeeded - waiting - running - failed)
        return BatchProgress(total, succeeded, failed, waiting, running, gone)

    def cancel(self, terminate: bool = False) -> int:
        """Cancel the members that wait, and return how many. Its `on_success` will not run any more.

        `terminate`: raise TaskRevoked in those that run. `on_failure` and `on_complete` run once all members
        have ended.
        """
        if memory := _memory():
            return int(memory.cancel_batch(self.id))
        batches.drop_success(self.id)
        members = Task.objects.filter(batch_id__in=batches.family(self.id))
        cancelled = operations.cancel(members)
        if terminate:
            operations.terminate(members)
        return cancelled


def _memory() -> Any:
    """Return the engine that keeps batches in memory while tests run; None: they are rows."""
    return engine.of(0) if collects() else None


def batch(
    *,
    on_success: Callback = None,
    on_failure: Callback = None,
    on_complete: Callback = None,
    description: str = "",
) -> Batch:
    """Return a new batch: the calls in its `with` block are its members, enqueued together at its end.

    `on_success`: what to enqueue when all members have succeeded; `on_failure`: as soon as one has failed;
    `on_complete`: when all have ended. Each is a task, or a call such as `report.s(42)`, and enqueued at most
    once. An exception in the block enqueues nothing.

    >>> with snappea.batch(on_success=report.s(order.pk), description="photos") as batch:
    ...     resize.delay_many((photo.pk,) for photo in photos)

    Raises TypeError or ValueError for callbacks that cannot be called like this.
    """
    callbacks = _packed(on_success), _packed(on_failure), _packed(on_complete)
    return Batch._of(Plan(description=str(description), callbacks=callbacks))


def chained(followers: Sequence[tuple[Signature, bool]]) -> Batch:
    """Return a batch for the first call of a chain; with each of the others, whether it takes a result."""
    then = None
    for call, takes_result in reversed(followers):
        then = _packed(call, then, takes_result)
    return Batch._of(Plan(callbacks=(then, None, None), is_chain=True))


def _packed(callback: Callback, then: str | None = None, takes_result: bool = False) -> str | None:
    if callback is None:
        return None
    if not isinstance(callback, (TaskFunction, Signature)):
        raise TypeError(f"{callback!r} cannot follow a batch: give a task, or a call such as report.s(42).")
    options = callback.options if isinstance(callback, Signature) else {}
    if any(isinstance(value, datetime) for value in options.values()):
        raise TypeError(
            "A callback counts its time from when it is enqueued: give countdown, not a datetime."
        )
    if "batch" in options:
        raise TypeError("A callback does not take `batch`: it joins the batch around its own.")
    with Collector(Plan()) as found:
        callback.delay(*[None] * takes_result)
    plan = next(iter(found.plan.parts), found.plan)  # a chain is a batch of its own
    return packed(plan.members[0][0], then or plan.callbacks[0], takes_result)
