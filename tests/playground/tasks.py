"""Tasks for the tests: each notes in the ledger when it starts and ends."""

import asyncio
import ctypes
import os
import sys
import time
from typing import Any

from django.db import connection, connections, transaction

from snappea import task

from . import durable as durable
from . import isolated as isolated
from .ledger import note


@task
def nothing() -> None:
    """Do nothing."""


@task
def record(key: str | int) -> None:
    """Note that it ran."""
    note("start", key)
    note("end", key)


@task(schedulable=True)
def echo(*args: Any, **kwargs: Any) -> None:
    """Note its arguments, as repr() without spaces."""
    note("echo", repr((args, kwargs)).replace(" ", ""))


@task
async def record_async(key: str | int) -> None:
    """Note that it ran, from a coroutine."""
    note("start", key)
    await asyncio.sleep(0)
    note("end", key)


@task
def fail(key: str | int) -> None:
    """Raise."""
    note("start", key)
    raise ValueError(f"no luck with {key}")


@task
def nap(key: str | int, seconds: float) -> None:
    """Sleep."""
    note("start", key)
    time.sleep(seconds)
    note("end", key)


@task(acks_late=True)
def nap_late(key: str | int, seconds: float) -> None:
    """Sleep; may be repeated."""
    note("start", key)
    time.sleep(seconds)
    note("end", key)


_hoard: list[bytes] = []


@task
def hoard(key: str | int, megabytes: int) -> None:
    """Take memory, and keep it."""
    note("start", key)
    _hoard.append(b"x" * megabytes * 1024 * 1024)
    note("end", key)


@task
def wait_for(key: str | int, path: str) -> None:
    """Wait until a file is there."""
    note("start", key)
    while not os.path.exists(path):
        time.sleep(0.005)
    note("end", key)


@task
def fail_at_length(key: str, path: str) -> None:
    """Wait until a file is there, and raise something long."""
    note("start", key)
    while not os.path.exists(path):
        time.sleep(0.005)
    raise ValueError("x" * 15_000)


@task
def raise_it(name: str) -> None:
    """Raise an exception of builtins, even one that is no Exception."""
    note("start", name)
    if name == "RecursionError":
        raise_it(name)
    raise getattr(__import__("builtins"), name)("on purpose")


@task
def raise_unprintable() -> None:
    """Raise what cannot be shown."""

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    raise Unprintable


@task
def die(key: str | int, how: str) -> None:
    """End the whole process."""
    note("start", key)
    if how == "segfault":
        ctypes.string_at(0)
    os._exit(7)


@task(acks_late=True)
def die_late(key: str | int) -> None:
    """End the whole process; may be repeated."""
    note("start", key)
    os._exit(7)


@task
def fork(key: str | int) -> None:
    """Fork, and let the child return as well."""
    note("start", key)
    if os.fork() == 0:
        note("child", key)
        if key == "raise":
            sys.exit(3)
        return
    note("end", key)


@task
def leak_transaction(key: str | int) -> None:
    """Leave a transaction open on both databases."""
    note("start", key)
    transaction.atomic().__enter__()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE leaked (id integer)")
    transaction.atomic(using="snappea").__enter__()


@task
def leak_plain_transaction(key: str | int) -> None:
    """Leave a transaction open that Django does not know of."""
    note("start", key)
    with connections["snappea"].cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")


@task
def break_connection(key: str | int) -> None:
    """Leave a connection that cannot be closed in order."""
    note("start", key)
    connection.ensure_connection()
    connection._close = lambda: 1 / 0  # type: ignore[attr-defined]


@task
def enqueue_more(key: str, count: int) -> None:
    """Enqueue from within a task."""
    note("start", key)
    record.delay_many((f"{key}-{number}",) for number in range(count))


if os.environ.get("SNAPPEA_TEST_DEPLOYED"):

    @task
    def newly_deployed(key: str) -> None:
        """Be there only after a deploy."""
        note("end", key)


@task
def close_all(path: str) -> None:
    """Close what is not its own, and open files in its place."""
    os.closerange(3, 1000)
    for number in range(20):
        taken = os.open(f"{path}-{number}", os.O_RDWR | os.O_CREAT)
        os.write(taken, b"mine")


@task
def fork_and_stay(key: str, path: str) -> None:
    """Fork, and let the child stay when the Foreman is long gone."""
    if os.fork() == 0:
        note("child", key)
        while not os.path.exists(path):
            time.sleep(0.005)
        note("gone", key)
        os._exit(0)
    time.sleep(60)


@task
def open_database(path: str) -> None:
    """Open a database's file by hand and close it, which drops SQLite's locks in this process."""
    with open(path, "rb"):
        pass
