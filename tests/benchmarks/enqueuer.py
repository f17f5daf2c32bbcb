"""The process that enqueues: `python -m tests.benchmarks.enqueuer ACTION NUMBER...`.

Prints what it measured as JSON.
"""

import json
import os
import random
import sys
import time
from typing import Any

from django.db import OperationalError

from . import tasks

enqueuer = tasks.system.enqueuer
#: Calls before the clock runs: the first one opens the database, the next ones warm up.
WARM_UP = 50


def one_by_one(count: int) -> float:
    """Enqueue one task after the other; return how many in a second."""
    nothing = enqueuer(tasks.nothing)
    for number in range(WARM_UP):
        nothing(number)
    began = time.perf_counter()
    for number in range(count):
        nothing(number)
    return count / (time.perf_counter() - began)


def between_marks(count: int) -> None:
    """Enqueue a task that tells when it starts, `count` that do nothing, and one that tells again."""
    nothing, mark = enqueuer(tasks.nothing), enqueuer(tasks.mark)
    mark()
    for number in range(count):
        nothing(number)
    mark()


def marks(count: int) -> None:
    mark = enqueuer(tasks.mark)
    for _ in range(count):
        mark()


def naps(count: int, milliseconds: int) -> None:
    nap = enqueuer(tasks.nap)
    for _ in range(count):
        nap(milliseconds / 1000)


def stream(count: int) -> dict[str, float]:
    """Enqueue while the worker runs; return when that began, and what the slow calls took."""
    nothing, mark = enqueuer(tasks.nothing), enqueuer(tasks.mark)
    for number in range(WARM_UP):
        nothing(number)
    time.sleep(0.2)
    calls = []
    began = before = time.monotonic()
    for number in range(count):
        nothing(number)
        after = time.monotonic()
        calls.append(after - before)
        before = after
    mark()
    calls.sort()
    return {"began": began, "p99": calls[int(count * 0.99)], "slowest": calls[-1]}


def together(milliseconds: int) -> dict[str, Any]:
    """Say that it is ready, and enqueue for so long once the others are.

    Returns what each call took, and how many of them were refused because others kept the lock.
    """
    nothing = enqueuer(tasks.nothing)
    for number in range(WARM_UP):
        nothing(number)
    tasks.tell(os.getpid())
    while not (go := tasks.directory / "go").exists():
        time.sleep(0.001)
    calls: list[float] = []
    refused = 0
    before = time.monotonic()
    end = float(go.read_text()) + milliseconds / 1000
    while before < end:
        try:
            nothing(len(calls))
        except OperationalError:
            refused += 1
        after = time.monotonic()
        calls.append(after - before)
        before = after
    return {"calls": calls, "refused": refused}


def questions(count: int) -> list[float]:
    """Enqueue tasks one at a time, each some 20 ms after the one before; return what each waited."""
    answer = enqueuer(tasks.answer)
    waited = []
    with open(os.open(tasks.PIPE, os.O_RDWR), "rb", buffering=0) as pipe:
        for _ in range(WARM_UP // 10 + count):
            time.sleep(random.uniform(0.010, 0.030))
            answer(time.monotonic())
            waited.append(float(pipe.readline()))
    return waited[-count:]


def main(action: str, *numbers: str) -> None:
    actions: dict[str, Any] = {
        function.__name__: function
        for function in (one_by_one, between_marks, marks, naps, stream, together, questions)
    }
    print(json.dumps(actions[action](*map(int, numbers))))


if __name__ == "__main__":
    main(*sys.argv[1:])
