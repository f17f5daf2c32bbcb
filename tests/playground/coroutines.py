"""Asynchronous tasks."""

import asyncio
import sys
import threading
import time
from pathlib import Path

from asgiref.sync import sync_to_async
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from snappea import Retry, current_task, task
from snappea.errors import SoftTimeLimitExceeded

from .ledger import note
from .tasks import record


@task
async def nothing() -> None:
    """Do nothing, on the event loop."""


@task(result_ttl=60)
async def sleep(seconds: float) -> float:
    """Sleep, without a thread."""
    note("start", current_task.id)
    await asyncio.sleep(seconds)
    note("end", current_task.id)
    return seconds


@task(result_ttl=60)
async def facts() -> list[object]:
    """Return what a coroutine can know of itself."""
    before = current_task.id
    await asyncio.sleep(0.01)
    assert current_task.id == before
    current_task.progress(3, 10, note="on the loop")
    child = await record.adelay("child")
    return [current_task.name, current_task.attempt, child.id, threading.current_thread().name]


@task
async def wait_for(key: str, path: str) -> None:
    """Wait until a file is there."""
    note("start", key)
    while not Path(path).exists():
        await asyncio.sleep(0.005)
    note("end", key)


@task(acks_late=True)
async def wait_late(key: str, path: str) -> None:
    """Wait until a file is there; may be repeated."""
    note("start", key)
    while not Path(path).exists():
        await asyncio.sleep(0.005)
    note("end", key)


@task(soft_time_limit=0.2)
async def wait_too_long(key: str) -> None:
    """Note by what it is ended."""
    try:
        await asyncio.sleep(60)
    except BaseException as error:
        note("ended", key, type(error).__name__)
        raise


@task(soft_time_limit=0.2, result_ttl=60)
async def clean_up() -> list[str]:
    """Take too long, and finish all the same; what comes then is not disturbed."""
    seen = []
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
    except SoftTimeLimitExceeded:
        seen.append("limit")
    try:
        async with asyncio.timeout(0.05):
            await asyncio.sleep(60)
    except TimeoutError:
        seen.append("its own")
    return seen


@task(autoretry_for=(SoftTimeLimitExceeded,), soft_time_limit=0.2, max_retries=1, default_retry_delay=0)
async def slow_at_first(key: str) -> None:
    """Take too long the first time."""
    note("start", key)
    await asyncio.sleep(60 if current_task.attempt == 1 else 0)
    note("end", key)


@task(max_retries=1)
async def retry_itself(key: str) -> None:
    """Have itself tried again."""
    note("start", key)
    if current_task.attempt == 1:
        raise Retry(countdown=0.05)


@task
async def fail(how: str) -> None:
    """Raise, in one of many ways."""
    await asyncio.sleep(0)
    if how == "exit":
        sys.exit("enough")
    if how == "cancelled":
        raise asyncio.CancelledError
    if how == "interrupt":
        raise KeyboardInterrupt
    raise ValueError(how)


@task
async def cancel_itself(how: str) -> None:
    """Cancel its own asyncio task, and end before that arrives."""
    this = asyncio.current_task()
    assert this
    this.cancel()
    if how == "raise":
        raise ValueError(how)


async def _go_on(key: str) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        note("gone", key)


async def _exit() -> None:
    sys.exit("in the background")


_left: set[object] = set()


@task
async def leave_behind(key: str, exits: bool = False) -> None:
    """Start something, and do not wait for it."""
    _left.add(asyncio.create_task(_exit() if exits else _go_on(key)))
    await asyncio.sleep(0.01)
    note("end", key)


@task(result_ttl=60)
async def use_orm(seconds: float) -> list[object]:
    """Use the database, which blocks a thread of its own."""
    count = await ContentType.objects.acount()

    def block() -> str:
        time.sleep(seconds)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return threading.current_thread().name

    note("blocking", current_task.id)
    name = await sync_to_async(block)()
    return [count, name, await sync_to_async(lambda: threading.current_thread().name)()]


@task(max_concurrency=2)
async def few_at_a_time(key: str) -> None:
    """Be one of few."""
    note("start", key)
    await asyncio.sleep(0.02)
    note("end", key)


@task
async def block(seconds: float) -> None:
    """Do not await, as one should."""
    note("start", "block")
    time.sleep(seconds)
