"""Tasks with options, for the tests of a task's whole life."""

import asyncio
import time
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

from snappea import Retry, current_task, task

from .ledger import note


@task(autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0.05)
def fail_until(key: str, attempt: int) -> None:
    """Raise until the given attempt."""
    note("start", key, current_task.attempt)
    if current_task.attempt < attempt:
        raise ValueError(f"not yet: {current_task.attempt}")
    note("end", key)


@task(max_retries=5)
def retry_itself(key: str, attempt: int, countdown: float) -> None:
    """Raise Retry until the given attempt."""
    note("start", key, current_task.attempt)
    if current_task.attempt < attempt:
        raise Retry(countdown=countdown)
    note("end", key)


@task(result_ttl=60)
def add(first: float, second: float) -> float:
    """Return the sum."""
    return first + second


@task(result_ttl=60)
def give(what: str) -> Any:
    """Return something, perhaps what cannot be kept."""
    return {"set": {1, 2}, "none": None, "tuple": (1, 2)}[what]


@task(result_ttl=1)
def brief() -> str:
    """Return what is not kept for long."""
    return "brief"


@task(result_ttl=60)
def fail_with_result() -> None:
    """Raise, though a result is wanted."""
    raise ValueError("no result")


@task(unique=True)
def unique_waiting(key: str, path: str = "") -> None:
    """Be alone while waiting."""
    note("start", key)


@task(unique="running")
def unique_running(key: str, seconds: float = 0.0) -> None:
    """Be alone until finished."""
    note("start", key)
    time.sleep(seconds)
    note("end", key)


@task(max_concurrency=2)
def two_at_a_time(key: str, seconds: float) -> None:
    """Run with one other at most."""
    note("start", key)
    time.sleep(seconds)
    note("end", key)


@task(max_concurrency=1, concurrency_key=lambda account, **_: account)
def one_per_account(account: str, *, key: str, seconds: float) -> None:
    """Run alone for its account."""
    note("start", account, key)
    time.sleep(seconds)
    note("end", account, key)


@task(rate_limit="10/s")
def ten_a_second(key: str) -> None:
    """Start at even distances."""
    note("start", key)


@task
def loop(key: str) -> None:
    """Go on until it is revoked."""
    note("start", key)
    try:
        while True:
            time.sleep(0.01)
    finally:
        note("end", key)


@task
def report(steps: int, path: str) -> None:
    """Say how far it is, and wait for a file in the end."""
    from pathlib import Path

    for step in range(steps + 1):
        current_task.progress(step, steps, note=f"step {step}")
    note("start", "report")
    while not Path(path).exists():
        time.sleep(0.005)


@task
def who_am_i(depth: int = 0) -> None:
    """Note what current_task says, and enqueue a child."""
    note(
        "task",
        current_task.id,
        current_task.name,
        current_task.attempt,
        current_task.queue,
        current_task.parent_id,
    )
    if depth:
        who_am_i.delay(depth - 1)


@task(aliases=["tests.playground.lifecycle.old_name"])
def renamed(key: str) -> None:
    """Be found under an old name."""
    note("end", key)


# times, retries, results, hooks


@task(expires=0.2)
def perishable(key: str) -> None:
    """Be worth running for a moment only."""
    note("end", key)


@task(autoretry_for=(LookupError,), dont_autoretry_for=(KeyError,), max_retries=1, default_retry_delay=0.05)
def choosy(name: str) -> None:
    """Be tried again after some exceptions only."""
    note("start", name, current_task.attempt)
    raise getattr(__import__("builtins"), name)("on purpose")


@task(autoretry_for=(ValueError,), max_retries=None, default_retry_delay=0.01)
def endless(key: str, attempt: int) -> None:
    """Be tried again for as long as it takes."""
    note("start", key, current_task.attempt)
    if current_task.attempt < attempt:
        raise ValueError("not yet")
    note("end", key)


@task(autoretry_for=(ValueError,), retry_kwargs={"max_retries": 1, "countdown": 0.3})
def as_in_taskq(key: str) -> None:
    """Raise, with its retries written as django-taskq has them."""
    note("start", key, current_task.attempt)
    raise ValueError("never")


@task(autoretry_for=(ValueError,), max_retries=2, default_retry_delay=2)
def try_later(key: str, attempt: int) -> None:
    """Be retried later, so that a test can look at the row first."""
    note("start", key, current_task.attempt)
    if current_task.attempt < attempt:
        raise ValueError("not yet")
    note("end", key)


@task(autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0.05, acks_late=True)
def fail_once_told(key: str, path: str) -> None:
    """Wait for a file and raise then; may be repeated."""
    import os

    note("start", key, current_task.attempt)
    while not os.path.exists(path):
        time.sleep(0.005)
    raise ValueError("told to")


def _retry(how: str) -> None:
    """Raise Retry in one of the ways there are, and some that there are not."""
    from datetime import UTC, datetime, timedelta

    odd: Any = {"text": "60", "nan": float("nan"), "naive": datetime(2026, 1, 1), "word": "tomorrow"}
    if how == "exc":
        raise Retry(exc=LookupError("the cause"), countdown=0.01)
    if how == "eta":
        raise Retry(eta=datetime.now(UTC) + timedelta(seconds=0.5))
    if how == "past eta":
        raise Retry(eta=datetime(2020, 1, 1, tzinfo=UTC))
    if how == "timedelta":
        raise Retry(countdown=timedelta(seconds=0.3))
    if how == "more":
        raise Retry(max_retries=4, countdown=0.01)
    if how == "current_task":
        current_task.retry(countdown=0.01)
    if how == "function":
        ask_again.retry(exc=LookupError("the cause"), countdown=0.01)
    if how in ("text", "nan"):
        raise Retry(countdown=odd[how])
    if how in ("naive", "word"):
        raise Retry(eta=odd[how])
    raise Retry(max_retries=odd["word"])


@task(max_retries=2)
def ask_again(how: str) -> None:
    """Ask to be tried again, whatever happens."""
    note("start", current_task.attempt)
    _retry(how)


@task(result_ttl=60)
def give_when(path: str, what: Any) -> Any:
    """Return something once a file is there."""
    import os

    while not os.path.exists(path):
        time.sleep(0.005)
    return what


@task
def loop_bravely(key: str) -> None:
    """Go on until it is revoked, and let no Exception stop it."""
    note("start", key)
    try:
        while True:
            try:
                time.sleep(0.01)
                raise ValueError
            except Exception:
                pass
    finally:
        note("end", key)


@task
def loop_in_vain(key: str) -> None:
    """Let itself be revoked once, and go on all the same."""
    from snappea import TaskRevoked

    note("start", key)
    try:
        while True:
            time.sleep(0.01)
    except TaskRevoked:
        note("end", key)


@task
async def loop_async(key: str) -> None:
    """Go on in an event loop until it is revoked, or five seconds at most."""
    import asyncio

    note("start", key)
    try:
        for _ in range(500):
            await asyncio.sleep(0.01)
        note("whole", key)
    finally:
        note("end", key)


@task(queue="mail")
async def who_am_i_async() -> None:
    """Note what current_task says within a coroutine."""
    import asyncio

    before = current_task.id
    await asyncio.sleep(0.01)
    note("async", before, current_task.id, current_task.name, current_task.attempt, current_task.queue)


@task
def note_times() -> None:
    """Note when it was enqueued, and its deadline."""
    enqueued_at = current_task.enqueued_at.isoformat()
    note("times", enqueued_at, current_task.deadline, bool(current_task), current_task.parent_id)


@task
def have_children() -> None:
    """Enqueue in each of the ways there are."""
    from django.db import transaction

    note_times.delay()
    note_times.delay_many([(), ()])
    note_times.apply_async(countdown=0.01)
    with transaction.atomic():
        note_times.delay_on_commit()
    note("parent", current_task.id)


@task
def in_a_thread() -> None:
    """Note whether a thread of its own knows of the task."""
    import threading

    thread = threading.Thread(target=lambda: note("thread", bool(current_task)))
    thread.start()
    thread.join()


@task(result_ttl=60)
def report_and_end(fails: bool) -> None:
    """Say how far it is, and end at once."""
    for step in range(11):
        current_task.progress(step, 10, note=f"step {step}")
    if fails:
        raise ValueError("on purpose")


def add_kwargs() -> dict[str, Any]:
    """Add the caller, as HOOK_ADD_TASK_KWARGS."""
    return {"_caller": "alice"}


def run_context(kwargs: dict[str, Any]) -> Any:
    """Note the caller, before and after, as HOOK_RUN_TASK_CONTEXT."""
    from contextlib import contextmanager

    caller = kwargs.pop("_caller", "nobody")

    @contextmanager
    def noting() -> Any:
        note("enter", caller)
        try:
            yield
        finally:
            note("leave", caller)

    return noting()


@task
def report_for_long(path: str) -> None:
    """Say how far it is, as often as it can, until a file is there."""
    import os

    step = 0
    while not os.path.exists(path):
        current_task.progress(step := step + 1)
        time.sleep(0.005)


@task
async def ask_in_a_coroutine() -> None:
    """Note what stands on the row only."""
    note("row", current_task.parent_id, current_task.enqueued_at.isoformat())


@task
def have_an_async_child() -> None:
    """Enqueue what asks for its parent in a coroutine."""
    ask_in_a_coroutine.delay()


@task(aliases=["tests.playground.gone.old_name", "older"])
def renamed_twice(key: str) -> None:
    """Be found under the names of modules that are gone."""
    note("end", key)


@task
def exit_in_context(name: str) -> None:
    """Raise within what HOOK_RUN_TASK_CONTEXT returned."""
    note("start", name)
    raise ValueError(name)


@task(sensitive=True)
def fail_sensitive(secret: str) -> None:
    """Raise what is not to be known."""
    hidden = secret
    raise ValueError(hidden)


class InThread:
    """Note where the hook and the task's own thread are, as HOOK_RUN_TASK_CONTEXT."""

    def __init__(self, kwargs: dict[str, Any]) -> None:
        self.caller = kwargs.pop("_caller", "nobody")

    def __enter__(self) -> None:
        note("enter", self.caller, current_task.name.rpartition(".")[2], current_task.id, _in_loop())
        connections["default"].tenant = self.caller  # type: ignore[attr-defined]

    def __exit__(self, *failure: object) -> None:
        note("leave", self.caller, *(kind.__name__ for kind in failure if isinstance(kind, type)))

    async def __aenter__(self) -> None:
        await sync_to_async(self.__enter__)()

    async def __aexit__(self, *failure: object) -> None:
        await sync_to_async(self.__exit__)(*failure)


def _in_loop() -> str:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "thread"
    return "loop"


def _note_tenant() -> None:
    note("tenant", getattr(connections["default"], "tenant", None))


@task
def see_tenant() -> None:
    """Note the tenant on the connection."""
    _note_tenant()


@task
async def see_tenant_on_loop() -> None:
    """Note it from a coroutine."""
    await sync_to_async(_note_tenant)()


@task(isolate=True)
async def see_tenant_apart() -> None:
    """Note it from a coroutine in a process."""
    await sync_to_async(_note_tenant)()
