"""The process that enqueues: `python -m tests.benchmarks.enqueuer ACTION NUMBER...`.

Prints what it measured as JSON.
"""

import json
import os
import random
import sys
import time
from typing import Any

from . import tasks

enqueuer = tasks.system.enqueuer
#: Calls before the clock starts: the first one opens the database, the others warm up.
WARM_UP = 50


def one_by_one(count: int, milliseconds: int) -> float:
    """Enqueue tasks one by one, a number of them or for a time; return how many a second."""
    _warm_up()
    began = time.monotonic()
    count = _nothing(count, began + milliseconds / 1000)
    return count / (time.monotonic() - began)


def bulk(at_once: int, times: int, milliseconds: int) -> float:
    """Enqueue many calls at once, a number of times or for a time; return how many calls a second."""
    calls = [(number,) for number in range(at_once)]
    enqueue = tasks.system.bulk_enqueuer(tasks.nothing)
    enqueue(calls)  # opens the database
    began, count = time.monotonic(), 0
    while count < times * at_once and time.monotonic() < began + milliseconds / 1000:
        enqueue(calls)
        count += at_once
    return count / (time.monotonic() - began)


def fill(count: int, milliseconds: int) -> int:
    """Enqueue a number of tasks, or for a time; return how many."""
    return _nothing(count, time.monotonic() + milliseconds / 1000)


def stream(count: int, milliseconds: int) -> dict[str, float]:
    """Enqueue a number of tasks, or for a time, while the worker runs; return the start, and how many."""
    _warm_up()
    time.sleep(0.2)
    began = time.monotonic()
    return {"began": began, "count": _nothing(count, began + milliseconds / 1000)}


def _warm_up() -> None:
    nothing = enqueuer(tasks.nothing)
    for _ in range(WARM_UP):
        nothing(0)


def _nothing(count: int, end: float) -> int:
    nothing, now = enqueuer(tasks.nothing), time.monotonic
    for number in range(count):
        nothing(number)
        if now() > end:
            return number + 1
    return count


def schedule() -> None:
    tasks.system.schedule(tasks.mark)


def marks(count: int) -> None:
    mark = enqueuer(tasks.mark)
    for _ in range(count):
        mark()


def naps(count: int, milliseconds: int) -> None:
    nap = enqueuer(tasks.nap)
    for _ in range(count):
        nap(milliseconds / 1000)


def together(milliseconds: int) -> dict[str, Any]:
    """Report that this process is ready, and enqueue for a time once the others are.

    Returns what each call took, and how many of them were refused because others kept the lock.
    """
    _warm_up()
    nothing = enqueuer(tasks.nothing)
    tasks.tell(os.getpid())
    while not (go := tasks.directory / "go").exists():
        time.sleep(0.001)
    calls: list[float] = []
    refused = 0
    before = time.monotonic()
    end = float(go.read_text()) + milliseconds / 1000
    while before < end:
        try:
            nothing(0)
        except Exception as error:  # each queue has its own for a lock that others keep
            refused += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        after = time.monotonic()
        calls.append(after - before)
        before = after
    return {"calls": calls, "refused": refused}


def questions(count: int, milliseconds: int) -> list[float]:
    """Enqueue tasks one at a time, about 20 ms apart; return how long each waited.

    It enqueues a number of them, or for a time, but at least one. If the system polls, the calls are spread
    over the interval, so that they do not all come right after a poll.
    """
    answer = enqueuer(tasks.answer)
    waited: list[float] = []
    end = time.monotonic() + milliseconds / 1000
    with open(os.open(tasks.PIPE, os.O_RDWR), "rb", buffering=0) as pipe:
        while not waited or (len(waited) < count and time.monotonic() < end):
            answer(time.monotonic())
            waited.append(float(pipe.readline()))
            time.sleep(random.uniform(0.010, 0.030) + random.uniform(0, tasks.system.looks_every))
    return waited


def main(action: str, *numbers: str) -> None:
    actions: dict[str, Any] = {
        function.__name__: function
        for function in (one_by_one, bulk, fill, stream, schedule, marks, naps, together, questions)
    }
    print(json.dumps(actions[action](*map(int, numbers))))


if __name__ == "__main__":
    main(*sys.argv[1:])
