"""Copies of a test's databases and files, for child processes that are killed."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections
from django.db.backends.signals import connection_created

from ..queue.database import forget

#: The connections of the parent, which a child must not close.
_inherited: list[object] = []


class Copies:
    """The databases and files of a test as they were, and copies that may be changed."""

    def __init__(self, directory: Path, files: Iterable[Path]) -> None:
        """Keep them in a directory. Raises RuntimeError if a database cannot be copied."""
        self._kept, self._used = directory, directory / "used"
        self._files = {path: directory / f"file-{number}" for number, path in enumerate(files)}
        for path, kept in self._files.items():
            _copy(path, kept)
        #: The databases that the test may use: their names by alias, and their copies by name.
        names = {alias: str(connections[alias].settings_dict["NAME"]) for alias in connections}
        self._names = {alias: name for alias, name in names.items() if _is_usable(alias)}
        self._rows = Counter(dict(self._counts()))
        self._copies: dict[str, tuple[Any, str]] = {}
        for alias, name in self._names.items():
            if name not in self._copies:
                self._copies[name] = connections[alias], self._keep(connections[alias], name)

    def _keep(self, connection: Any, name: str) -> str:
        """Return the name of the copy that children use."""
        if connection.vendor == "sqlite":
            kept = self._kept / connection.alias
            kept.write_bytes(connection.connection.serialize())  # with what the test has not committed
            return str(self._used / connection.alias)
        if connection.vendor != "postgresql":
            raise RuntimeError(f"crash_everywhere() needs SQLite or PostgreSQL, not {connection.vendor}.")
        if connection.in_atomic_block:
            raise RuntimeError(
                f"{connection.alias!r} is in a transaction, which other processes cannot see: use "
                "TransactionTestCase or django_db(transaction=True)."
            )
        connection.close()  # a database that is in use cannot be copied
        if hasattr(connection, "close_pool"):
            connection.close_pool()
        return f"{name}_crash"

    def renew(self) -> None:
        """Make new copies, and put the files back."""
        self.drop()
        self._used.mkdir()
        for name, (connection, copy) in self._copies.items():
            if connection.vendor == "sqlite":
                shutil.copyfile(self._kept / connection.alias, copy)
            else:
                _execute(connection, "CREATE DATABASE {} TEMPLATE {}", copy, name)

    def drop(self) -> None:
        """Delete the copies, and put the files back."""
        for path, kept in self._files.items():
            _copy(kept, path)
        shutil.rmtree(self._used, ignore_errors=True)  # with the journals that killed processes leave
        for connection, copy in self._copies.values():
            if connection.vendor != "sqlite":
                _execute(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", copy)

    def use(self) -> None:
        """Let this process, a child, use the copies."""
        connection_created.connect(_hurry)
        for alias, name in self._names.items():
            old: Any = connections[alias]
            _inherited.append(old)
            forget(old)
            connections.settings[alias]["NAME"] = self._copies[name][1]
            connections[alias] = connections.create_connection(alias)

    def new_rows(self) -> dict[str, int]:
        """Return how many rows there are more than in the beginning, by table."""
        return {
            table: count - self._rows[table] for table, count in self._counts() if count != self._rows[table]
        }

    def _counts(self) -> Iterator[tuple[str, int]]:
        for alias in self._names:
            with connections[alias].cursor() as cursor:
                for table in connections[alias].introspection.table_names(cursor):
                    cursor.execute(f"SELECT count(*) FROM {connections[alias].ops.quote_name(table)}")
                    yield f"{alias}: {table}", cursor.fetchone()[0]

    def contents(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the name and the lines of each file."""
        found = (file for path in self._files for file in (path, *path.rglob("*")) if file.is_file())
        for file in sorted(found):
            yield str(file), file.read_text(errors="backslashreplace").splitlines()


def _is_usable(alias: str) -> bool:
    try:
        with connections[alias].cursor():
            return True
    except (AssertionError, RuntimeError, ImproperlyConfigured, Error):  # not allowed here, or missing
        return False


def _copy(source: Path, target: Path) -> None:
    """Make a file or directory like another one, which may be missing."""
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def _execute(connection: Any, statement: str, *names: str) -> None:
    with connection._nodb_cursor() as cursor:
        cursor.execute(statement.format(*map(connection.ops.quote_name, names)))


def _hurry(*, connection: Any, **kwargs: Any) -> None:
    """Wait for no disk: what is written survives the death of the process all the same."""
    if connection.vendor == "sqlite":
        connection.connection.execute("PRAGMA synchronous = OFF")
