"""What `manage.py check` says about the set-up: what is wrong, and what to paste."""

import contextlib
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import ERROR, CheckMessage, Error, Info, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS
from django.db.utils import load_backend
from django.urls import get_resolver
from django.utils.module_loading import import_string

from . import distribution, schedules
from .celery import translation
from .conf import current, problems, uses_celery
from .errors import ConfigurationError, ExtraMissing
from .queue.availability import migrate_command, trouble
from .queue.database import NETWORK_FILE_SYSTEMS, file_system
from .queue.files import FLEETING_FILE_SYSTEMS, LAYERED_FILE_SYSTEMS
from .router import misrouted, routers_to_paste
from .tasks.callables import fault_of
from .tasks.discovery import failures, undiscovered
from .tasks.registry import declared, discover, registry

SQLITE = "django.db.backends.sqlite3"


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E001: an unknown or ill-typed key in SNAPPEA."""
    wrong = problems(getattr(settings, "SNAPPEA", {}))
    return [Error(message, hint=hint, id="snappea.E001") for message, hint in wrong]


@register()
def check_installation(**kwargs: Any) -> list[CheckMessage]:
    """E016: another distribution has a module of the same name."""
    if (other := distribution.other()) is None:
        return []
    wrong, cure = distribution.told(other)
    return [Error(wrong, hint=cure, id="snappea.E016")]


@register()
def check_database(**kwargs: Any) -> list[CheckMessage]:
    """E002 to E010 and E014: the queue's database."""
    if problems(getattr(settings, "SNAPPEA", {})):
        return []  # E001 comes first: it may name the database
    alias = current().DATABASE
    paste = f'DATABASES["{alias}"] = {{"ENGINE": "{SQLITE}", "NAME": BASE_DIR / "snappea.sqlite3"}}'
    configured = _databases().get(alias)
    if not configured:
        return [
            Error(
                f"There is no database {alias!r} for the queue.",
                hint=f"Add to settings: {paste}",
                id="snappea.E002",
            )
        ]
    if vendor_of(configured) == "sqlite":
        about_file = _check_file(alias, configured, paste)
        return [*_check_router(), *about_file, *_check_sqlite(alias, configured)]
    return [*_check_server(alias, configured, paste)] or [*_check_router()]


def vendor_of(configured: dict[str, Any]) -> str:
    """Return what kind of database an engine is for, also if it builds on one of Django's."""
    engine = str(configured.get("ENGINE"))
    try:
        return str(load_backend(engine).DatabaseWrapper.vendor)
    except ImproperlyConfigured:  # it cannot be imported, for want of psycopg perhaps
        return "postgresql" if "postg" in engine else ""


def _check_server(alias: str, configured: dict[str, Any], paste: str) -> Iterator[CheckMessage]:
    if vendor_of(configured) != "postgresql":
        engine = configured.get("ENGINE")
        message = (
            f"The queue's database {alias!r} has the engine {engine!r}; it must be SQLite or PostgreSQL."
        )
        yield Error(message, hint=f"Write: {paste}", id="snappea.E003")
    elif find_spec("psycopg") is None:
        missing = ExtraMissing("A queue on PostgreSQL needs psycopg 3", "postgres")
        yield Error(str(missing), hint=f"Run: pip install '{missing.package}'", id="snappea.E014")


def _databases() -> dict[str, Any]:
    databases: Any = settings.DATABASES
    return dict(databases)


def _check_router() -> Iterator[CheckMessage]:
    if wrong := misrouted():
        yield Error(
            f"The queue is not reached: {wrong}.",
            hint=f"Put Snappea's router first in the settings: {routers_to_paste()}",
            id="snappea.E004",
        )


def _check_file(alias: str, configured: dict[str, Any], paste: str) -> Iterator[CheckMessage]:
    name = str(configured.get("NAME") or "")
    if name.startswith("file:memorydb_"):
        return  # Django made it, for tests
    if not name or ":memory:" in name or "mode=memory" in name:
        message = f"The queue's database {alias!r} is in memory, where the Foreman cannot see it."
        yield Error(message, hint=f"Give it a file: {paste}", id="snappea.E005")
        return
    path = os.path.realpath(name)
    others = [
        other
        for other, theirs in _databases().items()
        if other != alias and theirs.get("NAME") and os.path.realpath(str(theirs["NAME"])) == path
    ]
    if others:
        yield Error(
            f"The queue's database {alias!r} is also that of other tables, as {others[0]!r}.",
            hint=f"Give the queue a file of its own, so that neither waits for the other: {paste}",
            id="snappea.E006",
        )
    if (kind := file_system(path)) in NETWORK_FILE_SYSTEMS:
        yield Error(
            f"The queue's database {path} is on a network file system ({kind}), where WAL mode loses data.",
            hint="Put it on a local disk; all that use it must run on one host.",
            id="snappea.E007",
        )
    yield from _check_place(name, path, paste)
    for setting in ("MEDIA_ROOT", "STATIC_ROOT"):
        root = getattr(settings, setting, None)
        if root and Path(path).is_relative_to(os.path.realpath(root)):
            yield Error(
                f"The queue's database {path} lies under {setting}, from where it may be served to anybody.",
                hint=f"Move it elsewhere: {paste}",
                id="snappea.E008",
            )


def _check_place(name: str, path: str, paste: str) -> Iterator[CheckMessage]:
    """Warn of a place where processes would not find the database, or not find it again."""
    if not os.path.isabs(name.removeprefix("file:")):
        yield Warning(
            f"The queue's database has the relative NAME {name!r}: each process that starts in another "
            "directory has a database of its own there, which no Foreman serves.",
            hint=f"Make it absolute: {paste}",
            id="snappea.W031",
        )
    kind = file_system(path)
    if kind in FLEETING_FILE_SYSTEMS:
        yield Warning(
            f"The queue's database {path} is in memory ({kind}): a restart of the machine or of the "
            "container loses all tasks.",
            hint='Put it on a disk. If you can do without: SILENCED_SYSTEM_CHECKS = ["snappea.W032"]',
            id="snappea.W032",
        )
    elif kind in LAYERED_FILE_SYSTEMS:
        yield Info(
            f"The queue's database {path} is in a container's own layer ({kind}): it is lost with the "
            "container, and no other container sees it.",
            hint="Put it on a volume, which all containers that use it share.",
            id="snappea.I031",
        )


def _check_sqlite(alias: str, configured: dict[str, Any]) -> Iterator[CheckMessage]:
    if configured.get("ATOMIC_REQUESTS") and alias != DEFAULT_DB_ALIAS:
        yield Error(
            f"ATOMIC_REQUESTS is on for the queue's database {alias!r}: each request would lock it.",
            hint=f'Remove it: DATABASES["{alias}"]["ATOMIC_REQUESTS"] = False',
            id="snappea.E009",
        )
    if sqlite3.sqlite_version_info < (3, 35):
        yield Error(
            f"Python uses SQLite {sqlite3.sqlite_version}; Snappea needs 3.35 or later.",
            hint="Install a newer libsqlite3, or a Python that brings one.",
            id="snappea.E010",
        )


@register()
def check_availability(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """I001 and W010: this process cannot use the queue, though the settings are right."""
    if problems(getattr(settings, "SNAPPEA", {})) or uses_celery() or current().TASK_ALWAYS_EAGER:
        return []
    queue = current().DATABASE
    if databases is not None and queue not in databases:
        return []
    if vendor_of(_databases().get(queue, {})) != "sqlite" and databases is None:
        return []  # a server is only asked when it is asked for
    if any(message.level >= ERROR for message in check_database()) or not (found := trouble()):
        return []
    message, hint = f"{_sentence(found.what)}.", _sentence(found.cure)
    if found.cure == f"run: {migrate_command()}":  # as on each first start: no reason to fail a check
        return [Info(message, hint=hint, id="snappea.I001")]
    return [Warning(message, hint=hint, id="snappea.W010")]


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}"


@register()
def check_schedules(**kwargs: Any) -> list[CheckMessage]:
    """E011 to E013: what is to be enqueued by itself."""
    if problems(getattr(settings, "SNAPPEA", {})):
        return []
    discover()
    return [_about_schedule(name, problem) for name, problem in schedules.problems()]


def _about_schedule(name: str, problem: Exception) -> CheckMessage:
    message = f"Schedule {name}: {problem}"
    if isinstance(problem, ExtraMissing):
        return Error(message, hint=f"Run: pip install '{problem.package}'", id="snappea.E012")
    if isinstance(problem, ConfigurationError):
        hint = 'As in crontab: "*/5 * * * *" is every five minutes, "0 3 * * mon" Mondays at 3.'
        return Error(message, hint=hint, id="snappea.E011")
    hint = 'Give what is missing in SNAPPEA["SCHEDULES"], as "args" or "kwargs", or correct the name.'
    return Error(message, hint=hint, id="snappea.E013")


@register()
def check_task_modules(**kwargs: Any) -> list[CheckMessage]:
    """E017, W011 and W012: modules with tasks that cannot be imported, or are not."""
    if problems(getattr(settings, "SNAPPEA", {})):
        return []
    discover()
    with contextlib.suppress(Exception):  # Django's own check reports it
        get_resolver().url_patterns  # noqa: B018  (views may import tasks, and Django's own check imports them)
    return [*_about_failures(), *_about_undiscovered()]


def _about_failures() -> Iterator[CheckMessage]:
    for module, failure in failures.items():
        if failure.is_definition:
            hint = "Correct the task: see the options of @task in the manual."
            yield Error(f"Cannot import {module}: {failure.reason}", hint=hint, id="snappea.E017")
            continue
        yield Warning(
            f"Cannot import {module}: {failure.reason}. Its tasks fail as unknown.",
            hint=f'Correct the error, which you see with: python manage.py shell -c "import {module}". If it '
            'is the module of another task queue: SILENCED_SYSTEM_CHECKS = ["snappea.W011"]',
            id="snappea.W011",
        )


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
        yield Warning(
            f"The Foreman does not import {module} when it starts, which declares {names}. {lost}.",
            hint=hint,
            id="snappea.W012",
        )


@register()
def check_functions(**kwargs: Any) -> list[CheckMessage]:
    """W021: tasks whose function runs nothing when it is called. Each call of one fails."""
    if problems(getattr(settings, "SNAPPEA", {})):
        return []
    discover()
    faults = ((task.name, fault_of(task.function)) for task in declared())
    return [
        Warning(f"The task {name} runs nothing: {fault}.", hint=cure, id="snappea.W021")
        for name, (fault, cure) in faults
        if fault
    ]


@register()
def check_celery(**kwargs: Any) -> list[CheckMessage]:
    """E012, E015, E026, W002 and W003: Celery, if that is in charge."""
    if problems(getattr(settings, "SNAPPEA", {})) or not uses_celery():
        return []
    if find_spec("celery") is None:
        missing = ExtraMissing('SNAPPEA["ENGINE"] = "celery" needs Celery', "celery")
        return [Error(str(missing), hint=f"Run: pip install '{missing.package}'", id="snappea.E012")]
    from .celery.engine import PING, project_app

    discover()
    found = [*_check_options(), *_check_django_tasks()]
    try:
        if not project_app().conf.result_backend:
            found += _check_results(PING)
    except ConfigurationError as error:
        hint = "See First steps with Django in Celery's manual."
        found.append(Error(str(error), hint=hint, id="snappea.E015"))
    return found


def _check_django_tasks() -> Iterator[CheckMessage]:
    """Here, and not by the backend, which Django asks only once something has imported django.tasks."""
    for alias, params in getattr(settings, "TASKS", {}).items():
        kind = import_string(params["BACKEND"])
        ours = sys.modules.get("snappea.backend")  # without which it cannot be one of ours
        if ours and issubclass(kind, ours.SnappeaBackend):
            yield Error(
                f"TASKS[{alias!r}] is Snappea's, but Celery is in charge: nobody runs its tasks.",
                hint='Give TASKS another backend, or drop SNAPPEA["ENGINE"].',
                id="snappea.E026",
            )


def _check_options() -> Iterator[CheckMessage]:
    for option, (what, names) in translation.gaps().items():
        yield Warning(
            f"{option} has no equivalent in Celery: {what}. It is asked for by: {', '.join(names)}.",
            hint='If you can do without: SILENCED_SYSTEM_CHECKS = ["snappea.W002"]',
            id="snappea.W002",
        )


def _check_results(but: str) -> Iterator[CheckMessage]:
    wanted = [
        name for name, task in sorted(registry.items()) if task.options.result_ttl is not None and name != but
    ]
    if wanted:
        yield Warning(
            f"Celery keeps no results, though these tasks have a result_ttl: {', '.join(wanted)}.",
            hint='Set Celery\'s result_backend, as in: CELERY_RESULT_BACKEND = "redis://"',
            id="snappea.W003",
        )


@register(Tags.security, deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """W001: others on this machine can read the queue's files."""
    if problems(getattr(settings, "SNAPPEA", {})):
        return []
    configured = _databases().get(current().DATABASE, {})
    path = str(configured.get("NAME") or "") if vendor_of(configured) == "sqlite" else ""
    open_to_others = [
        file
        for suffix in ("", "-wal", "-shm")
        if os.path.exists(file := path + suffix) and os.stat(file).st_mode & stat.S_IROTH
    ]
    if not all(directory.stat().st_mode & stat.S_IXOTH for directory in Path(os.path.realpath(path)).parents):
        return []  # others do not get there
    if not path or not open_to_others:
        return []
    return [
        Warning(
            f"Everybody on this machine can read the arguments of tasks: {', '.join(open_to_others)}.",
            hint=f"Run: chmod o= {' '.join(open_to_others)}",
            id="snappea.W001",
        )
    ]
