"""The system checks: each finds what is wrong with the setup, with a hint to paste."""

import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import ERROR, CheckMessage, Error, Info, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS
from django.db.utils import load_backend
from django.urls import get_resolver
from django.utils.module_loading import import_string

from . import distribution
from .conf import ALERT, current, is_on, setting_problems, uses_celery
from .errors import ConfigurationError, ExtraMissing
from .monitoring.undiscovered import undiscovered
from .queue.availability import run_migrate, trouble
from .queue.files import FLEETING_FILE_SYSTEMS, LAYERED_FILE_SYSTEMS, NETWORK_FILE_SYSTEMS, file_system
from .router import misrouted, routers_to_paste
from .schedules.plans import problems
from .tasks.calls import fault_of
from .tasks.discovery import discover, failures
from .tasks.function import declared

SQLITE = "django.db.backends.sqlite3"
Check = Callable[..., list[CheckMessage]]
#: All checks in order, and those that `manage.py snappea check` runs. An adapter appends its own.
CHECKS: list[Check] = []
SETUP: list[Check] = []


def run_all(**kwargs: Any) -> list[CheckMessage]:
    """Run all checks except the one for --deploy; `manage.py check` calls this."""
    return [message for check in CHECKS for message in check(**kwargs)]


def listed(check: Callable[..., Iterable[CheckMessage]]) -> Check:
    """Add a check to CHECKS. It reports nothing while the settings are invalid, which E001 reports."""

    @wraps(check)
    def run(**kwargs: Any) -> list[CheckMessage]:
        return [] if setting_problems() else list(check(**kwargs))

    CHECKS.append(run)
    return run


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E001: an unknown key or an invalid value in SNAPPEA."""
    return [Error(message, hint, id="snappea.E001") for message, hint in setting_problems()]


def check_installation(**kwargs: Any) -> list[CheckMessage]:
    """E016: another distribution has a package of the same name."""
    found = distribution.conflict()
    return [Error(*found, id="snappea.E016")] if found else []


CHECKS += [check_settings, check_installation]


@listed
def check_database(**kwargs: Any) -> Iterator[CheckMessage]:
    """E002 to E010 and E014: the queue's database."""
    alias = current().DATABASE
    paste = f'DATABASES["{alias}"] = {{"ENGINE": "{SQLITE}", "NAME": BASE_DIR / "snappea.sqlite3"}}'
    configured = _databases().get(alias)
    if not configured:
        message = f"There is no database {alias!r} for the queue."
        yield Error(message, f"Add to settings: {paste}", id="snappea.E002")
    elif vendor_of(configured) == "sqlite":
        yield from _check_router()
        yield from _check_file(alias, configured, paste)
        yield from _check_sqlite(alias, configured)
    elif vendor_of(configured) != "postgresql":
        message = f"The queue's database {alias!r} has the engine {configured.get('ENGINE')!r}"
        yield Error(f"{message}; it must be SQLite or PostgreSQL.", f"Write: {paste}", id="snappea.E003")
    elif find_spec("psycopg") is None:
        missing = ExtraMissing("A queue on PostgreSQL needs psycopg 3", "postgres")
        yield Error(str(missing), f"Run: pip install '{missing.package}'", id="snappea.E014")
    else:
        yield from _check_router()


def vendor_of(configured: dict[str, Any]) -> str:
    """Return the vendor of an engine, such as "sqlite", even if it only derives from one of Django's."""
    engine = str(configured.get("ENGINE"))
    try:
        return str(load_backend(engine).DatabaseWrapper.vendor)
    except ImproperlyConfigured:  # cannot be imported, perhaps because psycopg is missing
        return "postgresql" if "postg" in engine else ""


def _databases() -> dict[str, Any]:
    databases: Any = settings.DATABASES
    return dict(databases)


def _check_router() -> Iterator[CheckMessage]:
    if wrong := misrouted():
        hint = f"Put Snappea's router first in the settings: {routers_to_paste()}"
        yield Error(f"The queue is not reached: {wrong}.", hint, id="snappea.E004")


def _check_file(alias: str, configured: dict[str, Any], paste: str) -> Iterator[CheckMessage]:
    name = str(configured.get("NAME") or "")
    if name.startswith("file:memorydb_"):
        return  # Django's own, for tests
    if not name or ":memory:" in name or "mode=memory" in name:
        message = f"The queue's database {alias!r} is in memory, where the Foreman cannot see it."
        yield Error(message, f"Give it a file: {paste}", id="snappea.E005")
        return
    path = os.path.realpath(name)
    for other, theirs in _databases().items():
        if other != alias and theirs.get("NAME") and os.path.realpath(str(theirs["NAME"])) == path:
            message = f"The queue's database {alias!r} is the same file as the database {other!r}."
            hint = f"Give the queue its own file, so that neither waits for the other: {paste}"
            yield Error(message, hint, id="snappea.E006")
            break
    yield from _check_place(name, path, paste)
    for setting in ("MEDIA_ROOT", "STATIC_ROOT"):
        root = getattr(settings, setting, None)
        if root and Path(path).is_relative_to(os.path.realpath(root)):
            message = f"The queue's database {path} is under {setting}, which may be served to anyone."
            yield Error(message, f"Move it elsewhere: {paste}", id="snappea.E008")


def _check_place(name: str, path: str, paste: str) -> Iterator[CheckMessage]:
    """Report a place where processes would not find the database, or would lose it."""
    kind = file_system(path)
    if kind in NETWORK_FILE_SYSTEMS:
        message = f"The queue's database {path} is on a network file system ({kind})"
        hint = "Put it on a local disk; all processes that use it must run on one host."
        yield Error(f"{message}, where WAL mode loses data.", hint, id="snappea.E007")
    if not os.path.isabs(name.removeprefix("file:")):
        message = (
            f"The queue's database has the relative NAME {name!r}: a process that starts in another "
            "directory uses another database there, which no Foreman serves."
        )
        yield Warning(message, f"Make it absolute: {paste}", id="snappea.W031")
    if kind in FLEETING_FILE_SYSTEMS:
        message = (
            f"The queue's database {path} is in memory ({kind}): restarting the machine or the container "
            "loses all tasks."
        )
        hint = 'Put it on a disk. If that is acceptable: SILENCED_SYSTEM_CHECKS = ["snappea.W032"]'
        yield Warning(message, hint, id="snappea.W032")
    if kind in LAYERED_FILE_SYSTEMS:
        message = (
            f"The queue's database {path} is in the container's own layer ({kind}): it is lost with the "
            "container, and no other container sees it."
        )
        yield Info(message, "Put it on a volume that all containers share.", id="snappea.I031")


def _check_sqlite(alias: str, configured: dict[str, Any]) -> Iterator[CheckMessage]:
    if configured.get("ATOMIC_REQUESTS") and alias != DEFAULT_DB_ALIAS:
        message = f"ATOMIC_REQUESTS is on for the queue's database {alias!r}: each request would lock it."
        yield Error(message, f'Remove it: DATABASES["{alias}"]["ATOMIC_REQUESTS"] = False', id="snappea.E009")
    if sqlite3.sqlite_version_info < (3, 35):
        message = f"Python uses SQLite {sqlite3.sqlite_version}; Snappea needs 3.35 or later."
        hint = "Install a newer libsqlite3, or a Python that includes one."
        yield Error(message, hint, id="snappea.E010")


@listed
def check_availability(databases: Sequence[str] | None = None, **kwargs: Any) -> Iterator[CheckMessage]:
    """I001 and W010: this process cannot use the queue, though the settings are right."""
    queue = current().DATABASE
    if uses_celery() or current().TASK_ALWAYS_EAGER or (databases is not None and queue not in databases):
        return
    if vendor_of(_databases().get(queue, {})) != "sqlite" and databases is None:
        return  # a server is asked only if the command names its database
    if any(message.level >= ERROR for message in check_database()) or not (found := trouble()):
        return
    message, hint = f"{_sentence(found.what)}.", _sentence(found.cure)
    if found.cure == run_migrate():  # normal before the first start
        yield Info(message, hint, id="snappea.I001")
    else:
        yield Warning(message, hint, id="snappea.W010")


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}"


@listed
def check_schedules(**kwargs: Any) -> Iterator[CheckMessage]:
    """E011 to E013: periodic tasks."""
    discover()
    for name, problem in problems():
        message = f"Schedule {name}: {problem}"
        if isinstance(problem, ExtraMissing):
            yield Error(message, f"Run: pip install '{problem.package}'", id="snappea.E012")
        elif isinstance(problem, ConfigurationError):
            hint = 'As in crontab: "*/5 * * * *" is every five minutes, "0 3 * * mon" is Mondays at 3:00.'
            yield Error(message, hint, id="snappea.E011")
        else:
            hint = 'Add the missing "args" or "kwargs" to SNAPPEA["SCHEDULES"], or correct the task\'s name.'
            yield Error(message, hint, id="snappea.E013")


@listed
def check_task_modules(**kwargs: Any) -> Iterator[CheckMessage]:
    """E017, W011 and W012: modules with tasks that cannot be imported, or that nothing imports."""
    discover()
    with suppress(Exception):  # reported by Django's own check
        get_resolver().url_patterns  # noqa: B018  (it imports views, which may import tasks)
    yield from _about_failures()
    yield from _about_undiscovered()


def _about_failures() -> Iterator[CheckMessage]:
    for module, failure in failures.items():
        message = f"Cannot import {module}: {failure.reason}"
        if failure.is_definition:
            hint = "Correct the task: see the options of @task in the manual."
            yield Error(message, hint, id="snappea.E017")
            continue
        hint = (
            f'Correct the error, which this shows: python manage.py shell -c "import {module}". If the '
            'module belongs to another task queue: SILENCED_SYSTEM_CHECKS = ["snappea.W011"]'
        )
        yield Warning(f"{message}. Its tasks fail as unknown.", hint, id="snappea.W011")


def _about_undiscovered() -> Iterator[CheckMessage]:
    for module, tasks, app, bare in undiscovered():
        names = ", ".join(f"{module}.{name}" for name in tasks)
        hint = f"Move them to {app}/tasks.py or into the package {app}/tasks, or import {module} there."
        if not app:
            package = module.rpartition(".")[0]
            hint = f"Move them to tasks.py of an installed app, or add {package!r} to INSTALLED_APPS."
        elif bare:
            hint = f"If {module} is your code, add an empty {os.path.join(bare, '__init__.py')}. {hint}"
        lost = "They do not run" if bare or not app else "Their cron, every, name or aliases have no effect"
        message = f"At its start, the Foreman does not import {module}, which declares {names}. {lost}."
        yield Warning(message, hint, id="snappea.W012")


@listed
def check_functions(**kwargs: Any) -> Iterator[CheckMessage]:
    """W021: tasks that run nothing when they are called, so that each call fails."""
    discover()
    for task in declared():
        fault, cure = fault_of(task.function)
        if fault:
            yield Warning(f"The task {task.name} runs nothing: {fault}.", cure, id="snappea.W021")


@listed
def check_tracing(**kwargs: Any) -> Iterator[CheckMessage]:
    """E012: OPENTELEMETRY is on, but OpenTelemetry is not installed."""
    if is_on("OPENTELEMETRY") and find_spec("opentelemetry") is None:
        missing = ExtraMissing('SNAPPEA["OPENTELEMETRY"] needs OpenTelemetry', "opentelemetry")
        yield Error(str(missing), f"Run: pip install '{missing.package}'", id="snappea.E012")


@listed
def check_alerts(**kwargs: Any) -> Iterator[CheckMessage]:
    """E018 and W033: the function of ALERT cannot be imported, or there are no ADMINS."""
    configured = current().ALERT
    to = None if configured is None else (ALERT | configured)["TO"]
    if to == "admins" and not settings.ADMINS:
        message = "SNAPPEA['ALERT'] sends mail to ADMINS, which is empty."
        yield Warning(message, "Set ADMINS, or let TO be the path of a function.", id="snappea.W033")
    elif isinstance(to, str) and to != "admins":
        try:
            import_string(to)
        except ImportError as error:
            message = f"SNAPPEA['ALERT'] has a TO that cannot be imported: {error}."
            yield Error(message, 'Write the path of a function, or "admins".', id="snappea.E018")


SETUP += [check_settings, check_database, check_schedules]


def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """W001, with --deploy: other users of the machine can read the queue's files."""
    if setting_problems():
        return []
    configured = _databases().get(current().DATABASE, {})
    path = str(configured.get("NAME") or "") if vendor_of(configured) == "sqlite" else ""
    files = [path + suffix for suffix in ("", "-wal", "-shm") if path]
    readable = [file for file in files if os.path.exists(file) and os.stat(file).st_mode & stat.S_IROTH]
    is_reached = all(parent.stat().st_mode & stat.S_IXOTH for parent in Path(os.path.realpath(path)).parents)
    if not readable or not is_reached:
        return []
    message = f"Every user of this machine can read the arguments of tasks: {', '.join(readable)}."
    return [Warning(message, f"Run: chmod o= {' '.join(readable)}", id="snappea.W001")]
