"""Tasks for Celery's workers: each notes in the ledger what it does."""

import os
import time
from datetime import timedelta
from typing import Any

from snappea import Retry, SoftTimeLimitExceeded, TaskRevoked, current_task, task
from snappea.errors import NoCurrentTask
from tests.playground.ledger import note


@task
def record(key: str | int) -> None:
    """Note that it ran."""
    note("end", key)


@task(result_ttl=60)
def add(first: float, second: float) -> float:
    """Return the sum."""
    return first + second


@task(result_ttl=60)
async def echo(*args: Any, **kwargs: Any) -> Any:
    """Return the arguments, from a coroutine."""
    return [args, kwargs]


@task(bind=True, result_ttl=60)
def fetch(self: Any, key: str, failures: int = 0, *, limit: int | None = None) -> Any:
    """Fail so many times; return what it knows of itself."""
    request = self.request
    note("start", key, request.retries)
    if request.retries < failures:
        self.retry(exc=LookupError(key), countdown=0.05, max_retries=limit)
    return [request.id, request.retries, request.args, request.kwargs, request.called_directly]


@task(queue="mail", priority=50, result_ttl=60)
def describe(depth: int = 0) -> Any:
    """Return what it knows of itself; note what a child of it knows."""
    if depth:
        describe.apply_async((depth - 1,), queue="default")
    me = current_task
    told = [me.id, me.name, me.attempt, me.queue, me.parent_id, me.enqueued_at.isoformat()]
    note("told", depth, *told[:5])
    return [*told, me.deadline and me.deadline.isoformat()]


@task(
    autoretry_for=(ValueError,), dont_autoretry_for=(UnicodeError,), max_retries=2, default_retry_delay=0.05
)
def fail_until(key: str, attempt: int) -> None:
    """Raise until the given attempt."""
    note("start", key, current_task.attempt)
    if current_task.attempt < attempt:
        raise ValueError(f"not yet: {key}")
    if attempt == 0:
        raise UnicodeError("never again")
    note("end", key)


@task(max_retries=1, result_ttl=60)
def retry_itself(key: str, attempt: int, allowed: int) -> Any:
    """Raise Retry until the given attempt."""
    note("start", key, current_task.attempt)
    if current_task.attempt < attempt:
        raise Retry(exc=LookupError(key), countdown=0.05, max_retries=allowed)
    return [current_task.attempt, current_task.parent_id]


@task(soft_time_limit=0.5, time_limit=50, result_ttl=60)
def crawl(key: str) -> str:
    """Be told when the time is up."""
    note("start", key)
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "told"
    return "in vain"


@task(soft_time_limit=0.3, result_ttl=60)
def crawl_on() -> None:
    """Let the end of its time pass."""
    time.sleep(60)


@task(time_limit=1, result_ttl=60)
def convert() -> None:
    """Take no notice of anything."""
    time.sleep(60)


@task(result_ttl=60)
def loop(key: str) -> None:
    """Go on until it is revoked."""
    note("start", key)
    try:
        for _ in range(600):
            time.sleep(0.1)
    except TaskRevoked:
        note("revoked", key)
        raise


@task(result_ttl=60)
def report(path: str) -> str:
    """Say how far it is, and wait for a file."""
    current_task.progress(3, 10, note="resizing")
    while not os.path.exists(path):
        time.sleep(0.01)
    return "done"


@task(sensitive=True, result_ttl=60)
def fail_sensitive(secret: str) -> None:
    """Raise what is not to be known."""
    raise ValueError(secret)


@task(result_ttl=60)
def exit_early() -> None:
    """Try to end the worker."""
    raise SystemExit(3)


class Nothing(Exception):
    """Is false."""

    def __bool__(self) -> bool:
        return False


@task(result_ttl=60)
def raise_nothing() -> None:
    """Raise an exception that is false."""
    raise Nothing


@task(result_ttl=60)
def unkeepable() -> Any:
    """Return what is not JSON."""
    return {1, 2}


@task(acks_late=True)
def die_once(key: str, path: str) -> None:
    """Take its process along the first time; may be repeated."""
    note("start", key)
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), 9)
    note("end", key)


@task(acks_late=True)
def record_late(key: str | int) -> None:
    """Note that it ran; may be repeated."""
    note("end", key)


@task(expires=60, aliases=["tests.proj.tasks.old_name"])
def renamed(key: str) -> None:
    """Be found under an old name, too."""
    note("end", key)


@task(every=timedelta(seconds=1))
def each_second() -> None:
    """Note that it ran."""
    note("tick", "every")


@task(cron="* * * * * *", timezone="Europe/Amsterdam", queue="mail")
def each_second_by_cron() -> None:
    """Note that it ran, and where."""
    note("tick", "cron", current_task.queue)


@task(unique=True, rate_limit="600/m")
def alone() -> None:
    """Be alone, if it may."""


@task(max_concurrency=1, concurrency_key=lambda account: account, isolate=True, max_memory="1G")
def by_account(account: str) -> None:
    """Be alone for its account, if it may."""


@task(retry_on_kill=True, time_limit=50)
def robust() -> None:
    """Be tried again when it is killed, if it may."""


def add_kwargs() -> dict[str, Any]:
    """Add the caller, as HOOK_ADD_TASK_KWARGS."""
    return {"_caller": "alice"}


def run_context(kwargs: dict[str, Any]) -> Any:
    """Note the caller, as HOOK_RUN_TASK_CONTEXT."""
    from contextlib import nullcontext

    try:
        note("caller", kwargs.pop("_caller", "nobody"), current_task.name)
    except NoCurrentTask:
        note("caller", "lost")
    return nullcontext()
