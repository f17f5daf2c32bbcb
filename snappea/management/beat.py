"""The subcommand import-beat: imports the tables of django-celery-beat as schedules."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections, transaction
from django.utils import timezone

from .. import schedules
from ..conf import uses_celery
from ..errors import ConfigurationError, SnappeaError, UnknownTask
from ..log import clean
from ..queue.database import connect
from ..tasks.discovery import find
from .subcommands import Subcommands

_TABLES = "django_celery_beat_"
# the package may be gone, so there are no models
_QUERY = f"""
    SELECT p.name, p.task, p.args, p.kwargs, p.queue, p.enabled, i.every, i.period,
        c.minute, c.hour, c.day_of_month, c.month_of_year, c.day_of_week, c.timezone, s.event, o.clocked_time,
        p.one_off, p.total_run_count, p.start_time, p.expires, p.expire_seconds,
        p.priority, p.exchange, p.routing_key, p.headers
    FROM {_TABLES}periodictask p
    LEFT JOIN {_TABLES}intervalschedule i ON i.id = p.interval_id
    LEFT JOIN {_TABLES}crontabschedule c ON c.id = p.crontab_id
    LEFT JOIN {_TABLES}solarschedule s ON s.id = p.solar_id
    LEFT JOIN {_TABLES}clockedschedule o ON o.id = p.clocked_id
    ORDER BY p.id
"""
_ONCE = "enqueue it, once: apply_async(args, kwargs, eta=...)"


def add(subcommands: Subcommands) -> None:
    """Add the subcommand."""
    about = "Import the periodic tasks of django-celery-beat as schedules. Repeat it to import the rest."
    beats = subcommands.add("import-beat", _import_beat, about)
    where = 'The database with its tables ("default").'
    beats.add_argument("--database", default="default", metavar="ALIAS", help=where)
    beats.add_argument("--dry-run", action="store_true", help="Only print what would be imported.")


class Entry(SimpleNamespace):
    """A PeriodicTask with its schedule: an attribute for each column of the query."""

    def obstacle(self) -> str:
        """Return why it is not imported, and what to do; empty if it can be."""
        if self.task == "celery.backend_cleanup":
            return "not needed: the Foreman deletes expired results"
        if self.event:
            return f"there are no schedules by the sun ({self.event}): use cron"
        if self.clocked_time:
            return f"it runs once, at {self.clocked_time}: {_ONCE}"
        if self.one_off:
            return "it has run, once" if self.total_run_count else f"it runs once: {_ONCE}"
        if self.expires and self.expires <= timezone.now():
            return f"it ended at {self.expires}"
        if self.start_time and self.start_time > timezone.now():
            return f"it starts at {self.start_time}: import it then"
        if self.minute and not any(
            day.strip().startswith("*") for day in (self.day_of_month, self.day_of_week)
        ):
            return (
                "Celery needs both the day of the month and of the week, cron either: check one in the task"
            )
        return "" if self.every or self.minute else "it has no interval and no crontab"

    def options(self) -> dict[str, Any]:
        """Return the options of `schedules.add()`. Raises ValueError."""
        call = {"args": json.loads(self.args or "[]"), "kwargs": json.loads(self.kwargs or "{}")}
        call["queue"] = self.queue or None
        if self.every:
            return {**call, "every": timedelta(**{self.period: self.every})}
        fields = (self.minute, self.hour, self.day_of_month, self.month_of_year, self.day_of_week)
        cron = " ".join(field.replace(" ", "") for field in fields)
        return {**call, "cron": cron, "timezone": self.timezone}

    def lost(self) -> Iterator[str]:
        """Yield what a schedule does not have, with its equivalent."""
        if self.expires:
            yield f"it ends at {self.expires}: remove it then"
        if self.expire_seconds is not None:
            yield f"expire_seconds={self.expire_seconds}: use @task(expires={self.expire_seconds})"
        if self.priority is not None:
            yield f"priority={self.priority}: use @task(priority=...), from -100 to 100"
        if self.exchange or self.routing_key:
            yield "exchange and routing_key: use a queue"
        if self.headers not in (None, "", "{}"):
            yield "headers: use keyword arguments"


def entries(alias: str) -> list[Entry]:
    """Return the periodic tasks in a database. Raises ConfigurationError if it has no such tables."""
    if alias not in connections:
        raise ConfigurationError(f"There is no database {alias!r} in DATABASES.")
    connection = connections[alias]
    if f"{_TABLES}periodictask" not in connection.introspection.table_names():
        raise ConfigurationError(
            f"The database {alias!r} has no tables of django-celery-beat: use --database for another one."
        )
    with connection.cursor() as cursor:
        try:
            cursor.execute(_QUERY)
        except DatabaseError as error:
            raise ConfigurationError(f"Upgrade django-celery-beat and migrate it first: {error}.") from error
        names = [column[0] for column in cursor.description]
        values = ([_aware(value, connection.timezone) for value in row] for row in cursor.fetchall())
        return [Entry(**dict(zip(names, row, strict=True))) for row in values]


def _aware(value: Any, zone: Any) -> Any:
    is_naive = isinstance(value, datetime) and timezone.is_naive(value)
    return timezone.make_aware(value, zone) if is_naive else value


def load(entry: Entry, dry_run: bool) -> str:
    """Add an entry as a schedule, paused if it is disabled. Return why it was not added; empty if it was."""
    if obstacle := entry.obstacle():
        return obstacle
    alias = connect().alias
    try:
        with transaction.atomic(using=alias):
            schedules.add(entry.name, entry.task, **entry.options())
            if not entry.enabled:
                schedules.pause(entry.name)
            transaction.set_rollback(dry_run, using=alias)
    except json.JSONDecodeError as error:
        return f"its arguments are not JSON: {error}"
    except UnknownTask:
        return "there is no such task: declare it, perhaps with @task(name=...), and import again"
    except (SnappeaError, TypeError, ValueError) as error:
        task = find(entry.task)
        return schedules.reason(entry.task, error) if task and task.options.sensitive else str(error)
    return ""


def _import_beat(command: BaseCommand, options: dict[str, Any]) -> None:
    if uses_celery():
        raise CommandError('With Celery as the engine, beat reads its own tables. Remove "ENGINE" first.')
    known, done = {listed.planned.plan.name for listed in schedules.listing(0)}, 0
    verb = "Would import" if options["dry_run"] else "Imported"
    for entry in entries(options["database"]):
        name = clean(entry.name)
        if entry.name in known:
            command.stdout.write(f"Left {name}: there is a schedule of this name.")
        elif obstacle := load(entry, options["dry_run"]):
            command.stdout.write(f"Left {name} ({clean(entry.task)}): {clean(obstacle.rstrip('.'))}.")
        else:
            done += 1
            command.stdout.write(f"{verb} {name}{'' if entry.enabled else ', paused'}.")
            for each in entry.lost():
                command.stdout.write(f"    Not imported: {clean(each)}.")
    command.stdout.write(f"{verb} {done} schedules.")
