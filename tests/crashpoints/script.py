"""What the processes of a life do. Whatever they try, and how it ended, is in the ledger."""

import os
import sys
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import Error

import snappea
from snappea import TaskFunction, queue
from snappea.errors import SnappeaError
from snappea.models import Task
from tests.playground.ledger import Ledger, note
from tests.site import wait_until

from .tasks import (
    answer,
    fail,
    mail,
    mail_alone,
    record,
    record_alone,
    record_hourly,
    record_late,
    record_once,
    work,
    work_late,
)

#: How long the closer waits until nothing is left to do, in seconds.
PATIENCE = 30.0
#: What raises only errors of Snappea.
ENQUEUES = ("ack", "batch", "bulk")


def foreman() -> None:
    """Be a Foreman, until a signal."""
    call_command("runsnappea")


def enqueue() -> None:
    """Enqueue tasks before there is a Foreman."""
    _try("pause", "mail", queue.pause, "mail")
    for key in ("mail-1", "mail-2"):
        _enqueue(mail, key)
    _enqueue(mail_alone, "mail-alone")
    for function in (record, record_late, fail, work, work_late, answer, record_alone):
        for number in range(2):
            late = "late-" * function.options.acks_late
            _enqueue(function, f"{late}{function.name.rpartition('.')[2]}-{number}")
    for _ in range(2):
        _enqueue(record_once, "once")
    _enqueue(record_hourly, "cancelled", countdown=3600)
    _enqueue(record, "delayed", countdown=0.1)
    _enqueue(record, "urgent", priority=50)


def meddle() -> None:
    """Enqueue tasks while there is a Foreman, and do what people do."""
    _try("requeue", "again", _requeue)
    _enqueue(record_alone, "record_alone-2")
    _try("cancel", "cancelled", _cancel)
    _try("batch", "complete", _enqueue_batch)
    _try("bulk", "bulk", record.delay_many, [("bulk-1",), ("bulk-2",)])
    _try("pause", "mail", queue.pause, "mail")
    _enqueue(mail, "mail-3")
    _try("resume", "mail", queue.resume, "mail")
    _enqueue(record_late, "late-last")


def close() -> None:
    """Undo what a process that died has left; enqueue a canary; wait until nothing is left to do."""
    note("try-resume", "mail")
    queue.resume("mail")
    note("try-cancel", "cancelled")
    _cancel()
    if not record_hourly.apply_async(("cancelled",), countdown=3600).status:
        note("held", "cancelled")
    _cancel()
    canary, ledger = f"late-canary-{os.getpid()}", Ledger(settings.DIR)
    _enqueue(record_late, canary)
    wait_until(lambda: ledger.count("end", canary) and not _left(), f"{_left()}", PATIENCE)


def prepare() -> None:
    """Make the databases with which each life begins: a failed task, and a schedule."""
    for alias in ("default", "snappea"):
        call_command("migrate", database=alias, verbosity=0)
    (settings.DIR / "broken").touch()
    fail.delay("again")
    try:
        call_command("runsnappea", "--burst", verbosity=0)
    finally:  # it exits
        names = (name for name in sys.modules if name.startswith(("django.", "snappea.", "inotify")))
        (settings.DIR / "modules").write_text("\n".join(names))


def _try(what: str, key: str, act: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    note(f"try-{what}", key)
    try:
        act(*arguments, **options)
    except SnappeaError as error:
        note("doubtful" if "may be" in str(error) or what not in ENQUEUES else "refused", key)
        print(error, file=sys.stderr)
    except Error as error:  # from operations, as from any QuerySet
        if what in ENQUEUES:
            raise
        note("doubtful", key)
        print(error, file=sys.stderr)
    else:
        note(what, key)


def _enqueue(function: TaskFunction[..., Any], key: str, **options: Any) -> None:
    _try("ack", key, function.apply_async, (key,), **options)


def _enqueue_batch() -> None:
    with snappea.batch(on_complete=record.s("complete")):
        for number in range(3):
            record.delay(f"member-{number}")


def _requeue() -> None:
    queue.requeue(Task.objects.filter(args='["again"]'))


def _cancel() -> None:
    queue.cancel(Task.objects.filter(args='["cancelled"]'))


def _left() -> list[tuple[str, str]]:
    waits = ("ready", "running", "scheduled")
    return list(Task.objects.filter(status__in=waits).values_list("args", "status"))
