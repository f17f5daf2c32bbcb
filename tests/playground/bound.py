"""Tasks with `bind=True`, as one writes them for Celery."""

# ruff: noqa: B904  (as in Celery's manual)

import time
from typing import Any

from snappea import TaskFunction, current_task, shared_task
from snappea.errors import MaxRetriesExceededError

from .ledger import note


@shared_task(bind=True, max_retries=2, ignore_result=True)
def fetch(self: TaskFunction[..., Any], key: str, failures: int = 0) -> list[Any]:
    """Fail so many times; return what it knows of itself."""
    request = self.request
    note("start", key, request.retries, self.max_retries)
    try:
        if request.retries < failures:
            raise OSError("unreachable")
    except OSError as error:
        raise self.retry(exc=error, countdown=0.01)
    note("end", key, request.id)
    return [request.id, request.retries, request.args, request.kwargs, request.called_directly]


@shared_task(bind=True, max_retries=2, isolate=True)
def fetch_isolated(self: TaskFunction[..., Any], key: str, failures: int = 0) -> None:
    """The same in a process of its own."""
    note("start", key, self.request.retries, self.max_retries)
    if self.request.retries < failures:
        self.retry(exc=OSError("unreachable"), countdown=0.01)
    note("end", key, self.request.id)


@shared_task(bind=True, max_retries=2)
async def fetch_on_loop(self: TaskFunction[..., Any], key: str, failures: int = 0) -> list[Any]:
    """The same on the event loop."""
    note("start", key, self.request.retries, self.max_retries)
    if self.request.retries < failures:
        self.retry(exc=OSError("unreachable"), countdown=0.01)
    note("end", key, self.request.id)
    return [self.request.id, self.request.retries]


@shared_task(bind=True, max_retries=1, default_retry_delay=0.01)
def give_up(self: TaskFunction[..., Any], key: str) -> str:
    """Notice that no retries are left."""
    try:
        self.retry()
    except MaxRetriesExceededError as error:
        note("end", key, self.request.retries)
        return str(error)


@shared_task(bind=True, schedulable=True)
def call_again(self: TaskFunction[..., Any], key: str, times: int = 0) -> None:
    """Enqueue itself."""
    note("end", key, times)
    if times:
        self.delay(key, times - 1)


@shared_task(bind=True, acks_late=True)
def linger(self: TaskFunction[..., Any], key: str, seconds: float) -> None:
    """Sleep the first time."""
    note("start", key, self.request.retries)
    time.sleep(0 if current_task.attempt > 1 else seconds)
    note("end", key, self.request.retries)
