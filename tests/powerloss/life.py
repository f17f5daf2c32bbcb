"""A short life of a queue, to be recorded: processes that enqueue, two Foremen, checkpoints, and a kill.

What happened is in the ledger: "ack" once a call has returned, "start" and "end" of each body, "kept" once a
step has returned. The keys of tasks that may run twice begin with "late".
"""

from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connections

import snappea
from snappea import TaskFunction
from snappea.foreman import sqlite_host
from snappea.queue import database
from tests.playground.gated import hourly
from tests.playground.ledger import Ledger, note
from tests.playground.tasks import fail, nap, nap_late, record
from tests.site import wait_until

from .tasks import work, work_late

FORK = get_context("fork")
KILOBYTE = 1024


def live() -> None:
    """Start processes that use the queue, one after the other and at the same time."""
    # many small checkpoints, by the Foreman and by processes that enqueue, instead of a few large ones
    database.CHECKPOINT_AT = dict.fromkeys(database.CHECKPOINT_AT, 60 * KILOBYTE)
    sqlite_host.CHECKPOINT_FROM, sqlite_host.LARGE_WAL = 40 * KILOBYTE, 50 * KILOBYTE
    sqlite_host.LOOK_EVERY = sqlite_host.REST = 0.1
    ledger, path = Ledger(settings.DIR), Path(settings.DATABASES["snappea"]["NAME"])
    wal = Path(f"{path}-wal")
    _end(_start(enqueue, "a"))  # alone: it creates the write-ahead log, and deletes it
    foreman = _start(call_command, "runsnappea")
    for process in [_start(enqueue, who) for who in "bcd"]:
        _end(process)
    wait_until(partial(_have_run, ledger))
    _end(_start(_accept, nap, "killed", 60))
    wait_until(lambda: ledger.count("start", "killed"))
    foreman.kill()
    foreman.join()
    _end(_start(enqueue, "e"))
    foreman = _start(call_command, "runsnappea")
    wait_until(partial(_have_run, ledger))
    wait_until(lambda: path.stat().st_mtime >= wal.stat().st_mtime)  # a checkpoint: the log begins again
    _end(_start(enqueue, "f"))
    wait_until(partial(_have_run, ledger))
    foreman.terminate()
    _end(foreman)


def enqueue(who: str) -> None:
    """Enqueue tasks of all kinds, and note each once it is accepted."""
    for number in range(2):
        _accept(record, f"{who}-{number}")
        _accept(nap_late, f"late-{who}-{number}", 0.001)
        _accept(fail, f"failing-{who}-{number}")
        _accept(work, f"work-{who}-{number}")
        _accept(work_late, f"late-work-{who}-{number}")
        _accept(hourly, f"unique-{who}")
    with snappea.batch(on_complete=record.s(f"complete-{who}")):
        record.delay_many((f"member-{who}-{number}",) for number in range(3))
    for number in range(3):
        note("ack", f"member-{who}-{number}")
    note("ack", f"complete-{who}")


def _accept(function: TaskFunction[..., Any], key: str, *more: Any) -> None:
    function.delay(key, *more)
    note("ack", key)


def _have_run(ledger: Ledger) -> bool:
    """Tell whether all accepted tasks have ended, except for those that fail and the one that was killed."""
    accepted = [key for key in ledger.keys("ack") if not key.startswith(("failing", "killed"))]
    return not set(accepted) - ledger.keys("end").keys()


def _start(function: Callable[..., Any], *arguments: Any) -> ForkProcess:
    """Fork a process that calls a function."""
    process = FORK.Process(target=_call, args=(function, *arguments))
    process.start()
    return process


def _call(function: Callable[..., Any], *arguments: Any) -> None:
    try:
        function(*arguments)
    finally:
        connections.close_all()  # the last process deletes the write-ahead log


def _end(process: ForkProcess) -> None:
    """Wait for the end of a process. Raises AssertionError if it failed."""
    process.join()
    assert process.exitcode == 0
