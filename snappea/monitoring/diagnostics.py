"""`manage.py snappea check`: diagnose everything from the settings to a task that runs."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from django.core.checks import ERROR

from .. import checks
from ..conf import current, uses_celery
from ..errors import ResultNotKept, SnappeaError
from ..queue import operations
from ..queue.availability import trouble
from ..queue.database import MEGABYTE, connect, file_of
from ..queue.foremen import foremen_at_work
from .ping import ping

#: The minimum of free disk space, in bytes.
LEAST_ROOM = 100 * MEGABYTE


class Finding(NamedTuple):
    """The result of a check."""

    what: str
    said: str
    is_well: bool = True

    def __str__(self) -> str:
        return f"{'ok    ' if self.is_well else 'WRONG '} {self.what}: {self.said}"


def examine(queue: str, timeout: float) -> Iterator[Finding]:
    """Yield the findings up to the first part with a problem.

    `queue`: where to send a task. `timeout`: how long to wait for it, in seconds.
    """
    for part in (_settings(), _database(), _workers(), _task(queue, timeout)):
        findings = list(part)
        yield from findings
        if not all(finding.is_well for finding in findings):
            return


def _settings() -> Iterator[Finding]:
    found = [message for check in checks.SETUP for message in check() if not message.is_silenced()]
    for message in found:
        yield Finding("settings", f"{message.msg} {message.hint}", message.level < ERROR)
    if not found:
        yield Finding("settings", "no problems found")


def _database() -> Iterator[Finding]:
    if found := trouble():
        yield Finding("database", str(found), False)
        return
    connection = connect()
    file = file_of(connection)
    if file:
        yield Finding("database", file.path)
        yield Finding("SQLite", sqlite3.sqlite_version)
        yield Finding("permissions", "this process can write the database")
        free = shutil.disk_usage(os.path.dirname(file.path)).free
        yield Finding("disk", f"{free // MEGABYTE} MB free", free >= LEAST_ROOM)
    elif connection.vendor == "sqlite":
        yield Finding("database", "in memory, where other processes cannot reach it", False)
    else:
        yield Finding("database", str(connection.settings_dict["NAME"]))
        yield Finding("PostgreSQL", ".".join(map(str, connection.get_database_version())))


def _foreman() -> Iterator[Finding]:
    foremen = foremen_at_work()
    if not foremen:
        yield Finding("Foreman", "not running; start it: python manage.py runsnappea", False)
    for info in foremen:
        yield Finding("Foreman", f"pid {info.pid} on {info.host}, since {info.since:%Y-%m-%d %H:%M:%S}")
        if info.stuck:
            yield Finding("workers", f"{len(info.stuck)} stuck beyond a time limit")


#: Checks of the workers by the name of the engine. Adapters add their own.
WORKERS: dict[str, Callable[[], Iterator[Finding]]] = {"snappea": _foreman}


def _workers() -> Iterator[Finding]:
    yield from WORKERS[current().ENGINE]()  # once the settings are known to be valid


def _task(queue: str, timeout: float) -> Iterator[Finding]:
    if queue in operations.paused():
        yield Finding("a task", f"not sent: the queue {queue} is paused")
        return
    result = ping.apply_async(queue=queue)
    try:
        yield Finding("a task", f"answered {result.get(timeout)!r}")
    except TimeoutError:
        result.revoke(terminate=True)
        said = f"not run within {timeout:g} s; does a Foreman serve the queue {queue} (--queues)?"
        yield Finding("a task", said, False)
    except ResultNotKept as error:
        yield Finding("a task", str(error), uses_celery())
    except SnappeaError as error:
        yield Finding("a task", str(error), False)
