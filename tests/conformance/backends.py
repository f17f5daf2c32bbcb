"""What takes the place of Django's own backends in its tests: one that only enqueues, and one that drains."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

from snappea.django_tasks.backend import SnappeaBackend
from snappea.django_tasks.framework import TaskResult, TaskResultStatus


class StoredResult(TaskResult):  # type: ignore[type-arg]  # not generic at run time
    """A result with the status of the row: a test writes it there, to see whether refresh() finds it."""

    def __init__(self, result: Any) -> None:
        for field in fields(result):
            if field.name != "status":
                object.__setattr__(self, field.name, getattr(result, field.name))

    def _get_status(self) -> TaskResultStatus:
        found: TaskResultStatus = self.task.get_backend().get_result(self.id).status
        return found

    def _set_status(self, status: TaskResultStatus) -> None:
        from snappea.django_tasks.results import outside_of_loops
        from snappea.models import Task

        row = Task.objects.filter(pk=self.id)
        outside_of_loops(lambda: row.update(status=str(status).lower()))

    status: Any = property(_get_status, _set_status)

    def __eq__(self, other: object) -> bool:
        return all(getattr(self, field.name) == getattr(other, field.name) for field in fields(self))

    __hash__ = None  # type: ignore[assignment]


class QueueingBackend(SnappeaBackend):
    """Enqueues tasks that nothing runs: it replaces DummyBackend, and its list of results is our table."""

    def clear(self) -> None:
        from snappea.models import Task

        Task.objects.all().delete()

    @property
    def results(self) -> list[StoredResult]:
        from snappea.django_tasks.results import outside_of_loops
        from snappea.models import Task

        ids = outside_of_loops(
            lambda: list(Task.objects.filter(backend=self.alias).values_list("pk", flat=True))
        )
        return [StoredResult(self.get_result(str(pk))) for pk in ids]


class DrainingBackend(SnappeaBackend):
    """Does what the Foreman does with a task as soon as it is enqueued: in the place of ImmediateBackend."""

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        result = super().enqueue(task, args, kwargs)
        _run(int(result.id), task.queue_name)
        result.refresh()
        return result


def _run(task_id: int, queue_name: str) -> None:
    """Claim a task, run it, settle it, and have that told."""
    from snappea.django_tasks import adapter
    from snappea.models import Task
    from snappea.queue import store
    from snappea.queue.clock import now
    from snappea.queue.database import connect, transact
    from snappea.workers import execute
    from snappea.workers.event_loop import Slot, execute_on_loop
    from snappea.workers.limits import TaskHandle

    Task.objects.exclude(pk=task_id).delete()  # what other tests have left
    with transact(connect()) as db:
        claims = [
            claim
            for is_async in (False, True)
            for claim in store.claim(db, now(), 1, {queue_name: 1}, is_async=is_async)
        ]
    (claim,) = claims
    if claim.is_async:
        with ThreadPoolExecutor(1) as thread:
            outcome = thread.submit(lambda: asyncio.run(execute_on_loop(Slot(claim)))).result()
    else:
        outcome = execute.execute(claim, TaskHandle())
    with transact(connect()) as db:
        assert store.settle(db, now(), [outcome]) == 0
    adapter.notify_settled(outcome, is_urgent=True)
