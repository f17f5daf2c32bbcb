"""Tasks that keep what they log."""

import asyncio
import logging
import os
import signal
import threading
import time
from contextvars import copy_context
from pathlib import Path
from typing import Any

from snappea import Retry, current_task, task
from snappea.tasks.kept_log import open_logs

from .ledger import note

logger = logging.getLogger("shop.orders")
logger.setLevel(logging.INFO)


class Unprintable:
    """Raises wherever it is shown."""

    def __repr__(self) -> str:
        raise ValueError("not to be shown")

    __str__ = __repr__


def wait_for(path: str) -> None:
    """Wait until a file is there."""
    while not Path(path).exists():
        time.sleep(0.005)


def speak(word: str) -> None:
    """Log at all levels, an exception, and what a logger does not let through."""
    logger.debug("unheard")
    logger.info("%s: begins", word)
    try:
        raise KeyError(word)
    except KeyError:
        logger.exception("%s: fails", word)


@task(keep_log=True, result_ttl=60)
def speak_in_thread(word: str) -> None:
    """Log in the worker's thread, and in one that the task starts."""
    speak(word)
    thread = threading.Thread(target=copy_context().run, args=(logger.warning, "from a thread"))
    thread.start()
    thread.join()


@task(keep_log=True, result_ttl=60)
async def speak_on_loop(word: str) -> None:
    """Log on the event loop, and in a thread of it."""
    await asyncio.sleep(0)
    speak(word)
    await asyncio.to_thread(logger.warning, "from a thread")


@task(keep_log=True, result_ttl=60, isolate=True)
def speak_alone(word: str) -> None:
    """Log in a process, and in one that is forked."""
    speak_in_thread(word)
    if not (pid := os.fork()):
        logger.error("from a forked process")
        os._exit(0)
    os.waitpid(pid, 0)


@task(result_ttl=60)
def speak_by_setting(word: str) -> None:
    """Log; it is kept if the setting says so."""
    logger.warning("%s", word)


@task(result_ttl=60, keep_log=False)
def speak_unheard(word: str) -> None:
    """Log; it is never kept."""
    logger.warning("%s", word)


@task(keep_log=True, sensitive=True, result_ttl=60)
def speak_secretly(word: str) -> None:
    """Log; it is never kept."""
    logger.warning("%s", word)


@task(keep_log=True, max_retries=1)
def speak_again() -> None:
    """Log and fail, twice."""
    logger.info("attempt %d", current_task.attempt)
    raise Retry(exc=OSError("again"), countdown=0)


@task(keep_log=True, acks_late=True)
def speak_and_wait(path: str) -> None:
    """Log, and wait for a file."""
    logger.info("waits")
    note("start", current_task.attempt)
    wait_for(path)
    logger.info("goes on")


@task(keep_log=True, isolate=True)
def speak_and_die(how: int) -> None:
    """Log, and end the process at once."""
    logger.warning("last words")
    os.kill(os.getpid(), how)


@task(keep_log=True, result_ttl=60)
def speak_much(count: int, path: str = "") -> None:
    """Log so many lines; wait for a file in between."""
    for number in range(count):
        logger.info("line %d", number)
        if path and number == count // 2:
            wait_for(path)


@task(keep_log=True, result_ttl=60, isolate=True)
def speak_much_alone(count: int) -> None:
    """Do it in a process."""
    speak_much(count)


@task(keep_log=True, soft_time_limit=0.3)
def speak_endlessly() -> None:
    """Log until the time limit ends it, at whatever line it is."""
    while True:
        logger.info("on and on")


@task(keep_log=True, soft_time_limit=0.3, time_limit=60)
def speak_endlessly_alone() -> None:
    """Do it in a process."""
    while True:
        logger.info("on and on")


@task(keep_log=True, result_ttl=60)
def speak_badly() -> None:
    """Log what is hard to write."""
    logger.info("%d and %d", 1)
    logger.info("%s", Unprintable())
    logger.info("surrogate \ud800, NUL \0, line\u2028separator\nand newline")
    logger.info("x" * 10_000_000)
    logging.getLogger("a" * 1000).error("name")
    record: Any = logging.LogRecord("odd", 30, "", 0, Unprintable(), None, None)
    logger.handle(record)


@task(keep_log=True, result_ttl=60, isolate=True)
def speak_at_signals() -> None:
    """Log from a signal handler that interrupts logging."""
    signal.signal(signal.SIGVTALRM, lambda number, frame: logger.info("signal"))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
    for number in range(300):
        logger.info("line %d", number)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@task(result_ttl=60)
def count_open() -> int:
    """Return how many logs are open in the Foreman."""
    return len(open_logs)
