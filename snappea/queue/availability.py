"""Whether this process can use the queue; if not, why, and the cure.

Commands, pages, checks and `delay()` all ask here, so a fault has the same message everywhere.
"""

import functools
import os
import pkgutil
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management import get_commands
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.recorder import MigrationRecorder
from django.utils.connection import ConnectionDoesNotExist

from .. import migrations
from ..conf import alias, setting_problems, uses_celery
from ..errors import ConfigurationError, QueueUnavailable, SnappeaError
from ..router import APP_LABEL, misrouted, routers_to_paste
from .database import UNUSABLE as UNUSABLE
from .database import connect
from .files import writers


class Outdated(QueueUnavailable):
    """Migrations are missing. What needs no new column works."""


class _Usable(threading.local):
    link: object = None


_usable = _Usable()


def trouble(error: BaseException | None = None) -> QueueUnavailable | None:
    """Return what keeps this process from using the queue, with the cure; None if nothing is found.

    `error`: what the database raised. Nothing is created, not even a missing database.
    """
    return next(_troubles(error), None)


def explain(error: BaseException) -> QueueUnavailable:
    """Return why the queue cannot be used, after an attempt that raised an error."""
    refusal = f"the queue's database {_name()} refuses: {_first_line(error)}"
    return trouble(error) or QueueUnavailable(refusal, f"check {_setting()}")


@contextmanager
def usable(looks_first: bool = True) -> Iterator[None]:
    """Raise QueueUnavailable, with the cure, if the queue cannot be used before or during the block."""
    if looks_first:
        if found := trouble():
            raise found
        _usable.link = _link()
    try:
        yield
    except ConfigurationError as error:
        raise QueueUnavailable(str(error)) from error
    except SnappeaError:
        raise
    except UNUSABLE as error:
        raise explain(error) from error


def was_usable() -> bool:
    """Tell whether usable() has looked since this thread connected: it need not list the tables again."""
    return _usable.link is not None and _usable.link is _link()


def _link() -> object:
    found = [one for one in connections.all(initialized_only=True) if one.alias == alias() and one.connection]
    return getattr(found[0], "snappea_link", None) if found else None


def run_migrate() -> str:
    """Return the cure for missing or outdated tables."""
    return f"run: python manage.py migrate --database={alias()}"


def _troubles(error: BaseException | None) -> Iterator[QueueUnavailable]:
    """Yield what is wrong. Only the first is asked for: what follows it may rely on its absence."""
    for message, hint in setting_problems():
        yield QueueUnavailable(message.rstrip("."), hint.rstrip("."))
    if alias() not in connections:
        example = '{"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "snappea.sqlite3"}'
        yield QueueUnavailable(
            f"there is no database {alias()!r} in DATABASES for the queue",
            f"add to the settings: {_setting()} = {example}",
        )
    try:
        vendor = connections[alias()].vendor
    except ImproperlyConfigured as refused:
        what = f"cannot load the engine of the queue's database: {_first_line(refused)}"
        yield QueueUnavailable(what, f"check {_setting()}")
    if vendor not in ("sqlite", "postgresql"):
        yield QueueUnavailable(f"the queue's database is {vendor}", "use SQLite or PostgreSQL")
    if path := _path():
        yield from _of_file(path)
    if error:
        yield from _of_error(error)
    yield from _of_tables(error)
    if wrong := misrouted():
        yield QueueUnavailable(wrong, f"put Snappea's router first in the settings: {routers_to_paste()}")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def _name() -> str:
    try:
        return _path() or str(connections[alias()].settings_dict["NAME"])
    except (ConnectionDoesNotExist, ImproperlyConfigured):
        return repr(alias())


def _setting() -> str:
    return f'DATABASES["{alias()}"]'


def _path() -> str:
    """Return the path of the queue's database file; "" if it has none."""
    connection = connections[alias()]
    name = str(connection.settings_dict["NAME"] or "")
    is_file = connection.vendor == "sqlite" and name and not name.startswith((":memory:", "file:"))
    return os.path.abspath(name) if is_file else ""


# files


def _of_file(path: str) -> Iterator[QueueUnavailable]:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        yield _no_directory(directory)
    elif not _may(directory, os.X_OK):
        yield _refused(directory, "look into", "x")
    elif not os.path.lexists(path):
        if not _may(directory, os.W_OK):
            yield _refused(directory, f"create {os.path.basename(path)} in", "wx")
        yield QueueUnavailable(f"the queue's database {path} does not exist", run_migrate())
    elif os.path.exists(path) and not os.path.isfile(path):
        kind = "a directory" if os.path.isdir(path) else "not a regular file"
        example = os.path.join(path if os.path.isdir(path) else directory, "snappea.sqlite3")
        cure = f'name a file in {_setting()}["NAME"], such as {example}'
        yield QueueUnavailable(f"the queue's database {path} is {kind}", cure)
    else:
        for file in (path, f"{path}-wal", f"{path}-shm"):
            if _is_refused(file):
                yield _refused(file, "read and write", "rw")
        if not _may(directory, os.W_OK):
            yield _refused(directory, "create SQLite's -wal and -shm files in", "wx")


def _is_refused(file: str) -> bool:
    for _ in range(3):  # SQLite may be deleting or creating it
        if _may(file, os.R_OK | os.W_OK) or not os.path.lexists(file):
            return False
        time.sleep(0.01)
    return True


def _may(path: str, how: int) -> bool:
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def _no_directory(directory: str) -> QueueUnavailable:
    above = directory
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not _may(above, os.X_OK) and os.path.isdir(above):
        return _refused(above, "look into", "x")
    if not os.path.isdir(above):
        what = f"{above}, the place for the queue's database, is not a directory"
        return QueueUnavailable(what, f'change {_setting()}["NAME"]')
    what = f"the directory {directory} of the queue's database does not exist"
    user, _group = _names(os.geteuid())
    return QueueUnavailable(what, f"mount it, or create it as user {user}: mkdir -p {directory}")


def _refused(path: str, act: str, needed: str) -> QueueUnavailable:
    try:
        found = os.stat(path)
    except OSError as error:
        return QueueUnavailable(f"cannot reach {path}: {error.strerror}", "check its directory")
    (user, _), (owner, group) = _names(os.geteuid()), _names(found.st_uid, found.st_gid)
    mode = stat.S_IMODE(found.st_mode)
    what = f"user {user} may not {act} {path}, which belongs to {owner}:{group} with mode {mode:04o}"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        what += ": it is on a read-only file system"
        return QueueUnavailable(what, f'mount it writable, or change {_setting()}["NAME"]')
    wanted = sum({"r": 4, "w": 2, "x": 1}[letter] for letter in needed) << 6
    if os.geteuid() != found.st_uid and os.geteuid() != 0:
        return QueueUnavailable(what, f"run this as user {owner}, or run: chown {user} {path}")
    if mode & wanted != wanted:
        return QueueUnavailable(what, f"run: chmod u+{needed} {path}")
    return QueueUnavailable(what, "check its attributes (lsattr), access control list, SELinux and AppArmor")


def _names(user: int, group: int = 0) -> tuple[str, str]:
    """Return the names of a user and a group, or their numbers."""
    import grp  # neither exists on Windows
    import pwd

    names = [str(user), str(group)]
    with suppress(KeyError):
        names[0] = pwd.getpwuid(user).pw_name
    with suppress(KeyError):
        names[1] = grp.getgrgid(group).gr_name
    return names[0], names[1]


# what the database says

_CHECK_DISK = "check the disk, its free space and its permissions"
#: Part of SQLite's message, our message, and the cure.
_SQLITE_SAYS = (
    ("not a database", "{name} is not a SQLite database", "move it away or change {setting}, and {run}"),
    ("malformed", "{name} is damaged: {said}", "restore a backup, or run: sqlite3 {path} .recover"),
    ("full", "{name}: {said}", "free space on the disk, and try again"),
    ("readonly", "{name}: {said}", "let this process write the file and its directory"),
    ("disk I/O error", "{name}: {said}", _CHECK_DISK),
    ("unable to open", "{name}: {said}", _CHECK_DISK),
)


def _of_error(error: BaseException) -> Iterator[QueueUnavailable]:
    said, name = _first_line(error), f"the queue's database {_name()}"
    if "is locked" in said:
        pids = ", ".join(map(str, writers(_path())))
        holder = f"process {pids}" if pids else "another process"
        yield QueueUnavailable(f"{name}: database is locked by {holder}", "end its transaction, or try again")
    elif "deleted or replaced" in said:
        yield QueueUnavailable(said, "restart this process")
    elif connections[alias()].vendor == "sqlite":
        words = {"name": name, "said": said, "setting": _setting(), "path": _name(), "run": run_migrate()}
        for part, what, cure in _SQLITE_SAYS:
            if part in said:
                yield QueueUnavailable(what.format(**words), cure.format(**words))
    elif "connection" in said:
        yield QueueUnavailable(f"{name}: {said}", f"check {_setting()}, and that the server runs")


# tables


@functools.cache
def _our_migrations() -> frozenset[str]:
    names = (module.name for module in pkgutil.iter_modules(migrations.__path__))
    return frozenset(name for name in names if name[0] != "_")  # as Django's loader does


def _of_tables(error: BaseException | None) -> Iterator[QueueUnavailable]:
    try:
        has_tables, missing, applied = _tables_now()
    except UNUSABLE as refused:
        if error is None:
            yield explain(refused)
        return
    name, run = f"the queue's database {_name()}", run_migrate()
    if not has_tables and applied:
        if get_commands()["migrate"] != APP_LABEL:  # Snappea's own command removes those records
            run = f"run: python manage.py migrate {APP_LABEL} zero --fake --database={alias()}, then {run}"
        what = f"{name} has none of Snappea's tables, though its migrations are recorded as applied"
        yield QueueUnavailable(what, run)
    elif not has_tables:
        yield QueueUnavailable(f"{name} is not migrated", run)
    elif unapplied := _our_migrations() - applied:
        yield Outdated(f"{name} is out of date: the migration {min(unapplied)} is not applied", run)
    elif missing:
        cure = "restore a backup"
        if _path() and alias() != DEFAULT_DB_ALIAS:
            cure += f", or move the file away and {run}"
        yield QueueUnavailable(f"{name} is damaged: it has no table {min(missing)}", cure)


def _tables_now() -> tuple[bool, set[str], set[str]]:
    """Return _tables() without leaving a connection open: the file may be moved before it is used."""
    was_open = connections[alias()].connection is not None
    try:
        return _tables(connect())
    finally:
        if not was_open:
            connections[alias()].close()


def _tables(connection: Any) -> tuple[bool, set[str], set[str]]:
    """Return whether a database has any of our tables, which are missing, and the recorded migrations."""
    with connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor))
    ours = {model._meta.db_table for model in apps.get_app_config(APP_LABEL).get_models()}
    recorder = MigrationRecorder(connection)
    applied: set[str] = set()
    if recorder.Migration._meta.db_table in tables:
        applied = set(recorder.migration_qs.filter(app=APP_LABEL).values_list("name", flat=True))
    return bool(ours & tables), ours - tables, applied


def forget_false_migrations(connection: Any) -> bool:
    """Remove the records of our migrations from a database without our tables; tell whether there were any.

    Django records a migration as applied even if a router keeps its tables out.
    """
    has_tables, _missing, applied = _tables(connection)
    if has_tables:
        return False
    for name in applied:
        MigrationRecorder(connection).record_unapplied(APP_LABEL, name)
    return bool(applied)


def tell_after_migrate(*, sender: Any, using: str, verbosity: int, **kwargs: Any) -> None:
    """Print what is left to do after `migrate` of another database, which lists our migrations too."""
    is_ours = sender.name == APP_LABEL and "plan" in kwargs and using != alias()
    if is_ours and verbosity and not uses_celery() and (found := trouble()):
        output = kwargs.get("stdout") or sys.stdout
        output.write(f"Snappea's tables are not in this database. {found}\n")
