"""Tasks that return work which has not run. Not to be imported: `check` warns of some, and names them."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

from django.db import transaction

from snappea import task

from .ledger import note


async def _note(key: str) -> None:
    note("end", key)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def _running(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return asyncio.run(function(*args))

    return wrapper


@task
def generator() -> Iterator[int]:
    """Yield."""
    note("end", "generator")
    yield 1


@task
async def async_generator() -> AsyncIterator[int]:
    """Yield, asynchronously."""
    note("end", "async_generator")
    yield 1


@task(isolate=True)
def coroutine_in_process() -> Any:
    """Forget to await."""
    return _note("coroutine_in_process")


@task
async def coroutine_on_loop() -> Any:
    """Forget to await, on the event loop."""
    return _note("coroutine_on_loop")


@task
@_plain
async def decorated() -> None:
    """Be decorated by what does not await."""
    note("end", "decorated")


@task
@transaction.atomic
async def in_transaction() -> None:
    """Be decorated by Django's own, which does not await either."""
    note("end", "in_transaction")


@task
def future() -> "Future[int]":
    """Return what has not ended."""
    return Future()


@task
def lazy_map() -> Any:
    """Return what runs once something asks for it."""
    return map(note, ["end"], ["lazy_map"])


@task(autoretry_for=(OSError,))
@_running
async def right() -> str:
    """Be decorated by what runs it to its end."""
    note("end", "right")
    return "done"
