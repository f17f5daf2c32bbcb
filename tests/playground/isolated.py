"""Tasks that run in processes of their own."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import time
from typing import Any

from django.db import connection, transaction

from snappea import TaskRevoked, current_task, task
from snappea.errors import SoftTimeLimitExceeded

from . import lifecycle
from .ledger import note


@task(isolate=True)
def nothing() -> None:
    """Do nothing."""


@task(isolate=True)
def who(key: str | int) -> None:
    """Note the process, and its parent."""
    note("who", key, os.getpid(), os.getppid())


@task(isolate=True, result_ttl=60)
def know(first: int) -> dict[str, Any]:
    """Return what a task can know of itself, and enqueue another."""
    who.delay(f"from-{first}")
    return {"first": first, "id": current_task.id, "attempt": current_task.attempt, "pid": os.getpid()}


@task(time_limit=60, soft_time_limit=30, result_ttl=60)
def seconds_left() -> float | None:
    """Return how long it has."""
    deadline = current_task.deadline
    return deadline.timestamp() - time.time() if deadline else None


@task(time_limit=60, result_ttl=60)
def seconds_left_by_hard_limit() -> float | None:
    """Return how long it has."""
    deadline = current_task.deadline
    return deadline.timestamp() - time.time() if deadline else None


@task(isolate=True, result_ttl=60)
async def know_async(seconds: float) -> int:
    """Return the process of a coroutine."""
    await asyncio.sleep(seconds)
    return os.getpid()


@task(isolate=True)
def fail(key: str | int) -> None:
    """Raise."""
    note("start", key)
    raise ValueError(f"no luck with {key}")


@task(isolate=True, autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0.05)
def fail_until(key: str, attempt: int) -> None:
    """Raise until the given attempt."""
    note("start", key, current_task.attempt)
    if current_task.attempt < attempt:
        raise ValueError("not yet")


@task(time_limit=0.5)
def limited(key: str, path: str) -> None:
    """Sleep for long in a child and in a child of that, whatever is raised."""
    sleeper = subprocess.Popen(["sleep", "600"])
    note("pids", key, os.getpid(), sleeper.pid)
    while not os.path.exists(path):
        try:
            time.sleep(600)
        except BaseException:
            pass


@task(time_limit=0.3, retry_on_kill=True, max_retries=2, default_retry_delay=0.05)
def limited_and_retried(key: str) -> None:
    """Take too long, but not the third time."""
    note("start", key, current_task.attempt)
    if current_task.attempt < 3:
        time.sleep(600)


def _die(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    elif how == "abort":
        os.abort()
    os.kill(os.getpid(), signal.SIGKILL)


@task(isolate=True)
def die(key: str, how: str) -> None:
    """End the process."""
    note("start", key)
    _die(how)


@task(isolate=True, retry_on_kill=True, max_retries=2, default_retry_delay=0.05)
def die_and_retry(key: str, how: str) -> None:
    """End the process each time."""
    note("start", key, current_task.attempt)
    _die(how)


@task(max_memory="512M")
def allocate(megabytes: int) -> None:
    """Take so much memory."""
    note("allocated", len(bytearray(megabytes * 1024 * 1024)))


@task(max_memory=4096)
def starve() -> None:
    """Have no room at all."""


@task(isolate=True)
def stay(key: str, path: str) -> None:
    """Wait for a file."""
    note("start", key, os.getpid())
    while not os.path.exists(path):
        time.sleep(0.005)
    note("end", key)


@task(isolate=True, acks_late=True)
def stay_late(key: str, path: str) -> None:
    """Wait for a file, holding out with children of its own; may be repeated."""
    note("start", key, os.getpid())
    sleeper = subprocess.Popen(["sleep", "600"])
    note("pids", key, os.getpid(), sleeper.pid)
    while not os.path.exists(path):
        time.sleep(0.005)
    sleeper.kill()
    note("end", key)


@task(isolate=True)
def sleep(key: str) -> None:
    """Sleep in one piece, until something is raised."""
    note("start", key)
    try:
        time.sleep(600)
    except TaskRevoked:
        note("revoked", key)
        raise


@task(isolate=True)
def sleep_on(key: str) -> None:
    """Let nothing wake it."""
    note("start", key)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            note("woken", key)


@task(isolate=True, soft_time_limit=0.3)
def sleep_softly(key: str, cleans_up: bool) -> None:
    """Sleep in one piece, and perhaps end in order."""
    note("start", key)
    try:
        time.sleep(600)
    except SoftTimeLimitExceeded:
        note("soft", key)
        if not cleans_up:
            raise


@task(isolate=True)
def compute(key: str, seconds: float) -> None:
    """Use a processor for so long."""
    began = time.monotonic()
    while time.process_time() < seconds:
        sum(range(1000))
    note("cpu", key, os.getpid(), began, time.monotonic())


@task(isolate=True)
def descriptors() -> None:
    """Note what is open."""
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):
        try:
            note("fd", number, os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            pass  # that of the listing


@task(isolate=True)
def close_all(path: str) -> None:
    """Close what is not its own, and open a file in its place."""
    os.closerange(3, 1000)
    for number in range(4):  # in the places of what was closed
        taken = os.open(f"{path}-{number}", os.O_WRONLY | os.O_CREAT)
        os.write(taken, b"mine")
    note("closed")


@task(isolate=True)
def report(steps: int, path: str) -> None:
    """Say how far it is, and wait for a file in the end."""
    lifecycle.report(steps, path)


@task(isolate=True, result_ttl=60)
def report_and_end() -> None:
    """Say how far it is, and end."""
    for step in range(1001):
        current_task.progress(step, 1000)


@task(isolate=True)
def report_for_ever(key: str) -> None:
    """Say how far it is all the time, until something is raised."""
    note("start", key)
    step = 0
    while True:
        current_task.progress(step := step + 1)


@task(isolate=True)
def fork(key: str, path: str) -> None:
    """Fork a session of its own, which goes on alone."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(writer, b".")
        note("fork", key, os.getpid(), ",".join(sorted(os.listdir("/proc/self/fd"))))
        while not os.path.exists(path):
            time.sleep(0.005)
        return  # it must not tell an outcome
    os.read(reader, 1)  # what has no session of its own yet would go with this process
    os.close(reader)
    os.close(writer)
    note("end", key)


class _Dawdler(logging.Handler):
    """Keeps the process from its end until there is a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def flush(self) -> None:
        while not os.path.exists(self._path):
            time.sleep(0.005)


@task(isolate=True)
def end_slowly(key: str, path: str) -> None:
    """Be done with long before the process is."""
    note("start", key)
    logging.getLogger("tests").addHandler(_Dawdler(path))
    note("end", key)


@task(isolate=True)
def fork_and_return(key: str) -> None:
    """Let a forked copy return as well."""
    if os.fork() == 0:
        note("copy", key)
        return
    os.wait()
    note("end", key)


@task(isolate=True)
def leak_transaction(key: str) -> None:
    """Leave a transaction open."""
    transaction.atomic().__enter__()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE leaked (id integer)")
    note("end", key)


@task(isolate=True, result_ttl=60)
def echo(text: str) -> str:
    """Return what it was given."""
    return text


@task(isolate=True, soft_time_limit=0.3)
async def sleep_async(key: str) -> None:
    """Sleep without end, and note by what it is ended."""
    note("start", key, os.getpid())
    try:
        await asyncio.sleep(60)
    except BaseException as error:
        note("ended", key, type(error).__name__)
        raise


@task(isolate=True)
async def stay_async(key: str) -> None:
    """Sleep without end, but for TaskRevoked."""
    note("start", key, os.getpid())
    try:
        await asyncio.sleep(60)
    except TaskRevoked:
        note("revoked", key)
        raise


@task(isolate=True)
async def cancel_itself() -> None:
    """Cancel its own asyncio task, and end before that arrives."""
    this = asyncio.current_task()
    assert this
    this.cancel()


@task(max_memory="16M")
async def starve_async() -> None:
    """Have less memory than it takes to begin."""
