"""`manage.py snappea check`: is all well, from the settings to a task that really runs?"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from django.core.checks import ERROR

from .. import checks
from ..conf import uses_celery
from ..errors import ResultNotKept, SnappeaError
from ..queue import operations
from ..queue.availability import trouble
from ..queue.database import MEGABYTE, connect, file_of
from ..queue.foremen import foremen_at_work
from ..tasks.results import AsyncResult
from .ping import ping

#: Less room than this on the disk is too little, in bytes.
LEAST_ROOM = 100 * MEGABYTE


class Finding(NamedTuple):
    """What was looked at, and what was found."""

    what: str
    said: str
    is_well: bool = True

    def __str__(self) -> str:
        return f"{'ok    ' if self.is_well else 'WRONG '} {self.what}: {self.said}"


def examine(queue: str, timeout: float) -> Iterator[Finding]:
    """Yield what is found, from the settings upwards; what builds on something wrong is not looked at.

    `queue`: which one a task is sent to. `timeout`: how long to wait for it, in seconds.
    """
    parts = [_settings(), _database(), _celery() if uses_celery() else _foreman(), _task(queue, timeout)]
    for part in parts:
        findings = list(part)
        yield from findings
        if not all(finding.is_well for finding in findings):
            return


def _settings() -> Iterator[Finding]:
    found = [message for check in checks.SETUP for message in check() if not message.is_silenced()]
    for message in found:
        yield Finding("settings", f"{message.msg} {message.hint}", message.level < ERROR)
    if not found:
        yield Finding("settings", "nothing to say against them")


def _database() -> Iterator[Finding]:
    if found := trouble():
        yield Finding("database", str(found), False)
        return
    connection = connect()
    file = file_of(connection)
    if file is None and connection.vendor == "sqlite":
        yield Finding("database", "it is in memory", False)
        return
    yield Finding("database", file.path if file else str(connection.settings_dict["NAME"]))
    if file:
        yield Finding("SQLite", sqlite3.sqlite_version)
        yield Finding("permissions", "this process may write it")
        free = shutil.disk_usage(os.path.dirname(file.path)).free
        yield Finding("disk", f"{free // MEGABYTE} MB free", free >= LEAST_ROOM)
    else:
        yield Finding("PostgreSQL", ".".join(map(str, connection.get_database_version())))


def _foreman() -> Iterator[Finding]:
    foremen = foremen_at_work()
    if not foremen:
        yield Finding("Foreman", "none runs; start it: python manage.py runsnappea", False)
    for alive in foremen:
        yield Finding("Foreman", f"pid {alive.pid} on {alive.host}, since {alive.since:%Y-%m-%d %H:%M:%S}")
        if alive.stuck:
            yield Finding("workers", f"{len(alive.stuck)} hang beyond their task's limit")


def _celery() -> Iterator[Finding]:
    from ..celery.engine import project_app

    try:
        found = project_app().control.ping(timeout=2.0)
    except Exception as error:  # each broker has its own
        yield Finding("Celery", f"its broker does not answer: {error}", False)
        return
    names = [name for answer in found for name in answer]
    said = f"{len(names)} workers answer: {', '.join(names)}" if names else "no worker answers"
    yield Finding("Celery", said if names else f"{said}; start one: celery -A proj worker", bool(names))


def _task(queue: str, timeout: float) -> Iterator[Finding]:
    if queue in operations.paused():
        yield Finding("a task", f"not tried: the queue {queue} is paused")
        return
    result = ping.apply_async(queue=queue)
    try:
        yield Finding("a task", f"answered {result.get(timeout)!r}")
    except TimeoutError:
        yield Finding("a task", _why_not(result, queue, timeout), False)
    except ResultNotKept as error:
        yield Finding("a task", str(error), uses_celery())
    except SnappeaError as error:
        yield Finding("a task", str(error), False)


def _why_not(result: AsyncResult, queue: str, timeout: float) -> str:
    result.revoke(terminate=True)
    return f"was not run within {timeout:g} s; is the queue {queue} among those that are served (--queues)?"
