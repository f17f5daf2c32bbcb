"""Tasks of steps, in a thread, in a process of its own, and on the event loop; each may kill its Foreman."""

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings

from snappea import astep, current_task, cursor, step, task

from .ledger import note

STEPS = ("reserve", "charge", "ship")
#: In these files the Foreman is killed before a line runs.
TRACED = ("/snappea/tasks/steps.py", "/snappea/queue/steps.py", "/playground/durable.py")


class Killer:
    """Kills the Foreman, and the task's own process, before the n-th line of this attempt."""

    def __init__(self, number: int, foreman: int) -> None:
        self.left, self.foreman = number, foreman

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Trace the lines of the files above."""
        if not frame.f_code.co_filename.endswith(TRACED) or frame.f_code.co_name == "trace":
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                os.kill(self.foreman, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace


def arm() -> None:
    """Let this attempt be killed where the file "kill-at" says: it has a line number for each attempt."""
    numbers = [int(word) for word in (settings.DIR / "kill-at").read_text().split()]
    if current_task.attempt > len(numbers):
        return
    killer = Killer(numbers[current_task.attempt - 1], _foreman())
    threading.settrace(killer.trace)
    sys.settrace(killer.trace)


def _foreman() -> int:
    """Return the Foreman's pid: this process, or the parent of the fork server."""
    if Path("/proc/self/comm").read_text().strip() != "snappea-task":
        return os.getpid()
    status = Path(f"/proc/{os.getppid()}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


def act(name: str) -> list[str]:
    """Do what a step does."""
    note("start", name)
    note("done", name)
    return [name]


async def act_async(name: str) -> list[str]:
    """Do the same on an event loop."""
    note("start", name)
    await asyncio.sleep(0)
    note("done", name)
    return [name]


def _pay() -> None:
    arm()
    try:
        note("attempt", current_task.attempt)
        for name in STEPS:
            result = step(name, act, name)
            note("kept", name)
            assert result == [name]
        note("end", "pay")
    finally:
        sys.settrace(None)
        threading.settrace(None)


@task(acks_late=True)
def pay() -> None:
    """Pay in steps."""
    _pay()


@task(acks_late=True, isolate=True)
def pay_isolated() -> None:
    """Pay in steps, in a process of its own."""
    _pay()


@task(acks_late=True)
async def pay_async() -> None:
    """Pay in steps, on the event loop."""
    arm()
    try:
        note("attempt", current_task.attempt)
        for name in STEPS:
            result = await astep(name, act_async, name)
            note("kept", name)
            assert result == [name]
        note("end", "pay")
    finally:
        sys.settrace(None)
        threading.settrace(None)


@task(acks_late=True)
def count(most: int, seconds: float) -> None:
    """Count from where the last attempt ended."""
    for number in range(cursor.get(0), most):
        note("count", number)
        time.sleep(seconds)
        cursor.set(number + 1)
    note("end", "count")


@task(acks_late=True)
def stand(seconds: float) -> None:
    """Make no progress."""
    note("attempt", current_task.attempt)
    time.sleep(seconds)


@task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
def refund(failures: int) -> None:
    """Fail after a step, so many times."""
    step("reserve", act, "reserve")
    note("attempt", current_task.attempt)
    if current_task.attempt <= failures:
        raise ValueError("not yet")
    note("end", step("charge", act, "charge")[0])
