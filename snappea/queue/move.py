"""Moves the queue from one database to another, each row exactly once.

The target commits a chunk of rows together with their keys, and only then does the source delete them. After
a kill in between, the next run first deletes what the keys name. No Foreman may work on either database
meanwhile: a mark in each refuses it, and the one in the source stays.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from ..errors import QueueUnavailable
from ..models import Batch, Presence, Task
from ..router import APP_LABEL
from . import database, logbook, recovery
from .availability import Outdated, trouble, usable
from .clock import now
from .database import ADAPTERS, RawConnection, adapter, connect, file_of, raw, transact
from .dialects import statement
from .foremen import MOVED, MOVING, moves, moves_first
from .lock import Lock

#: How many rows move at once. Calls wait for that long.
CHUNK = 5000
#: By how much the next id in the target is higher than in the source, where calls may still arrive.
ROOM = 10_000_000

#: The rows that stay.
_STAY = {
    "snappea_task": "status = 'running'",
    "snappea_handover": f"key IN ('{MOVED}', '{MOVING}')",
}
_MARK = """
    INSERT INTO snappea_handover (key, task_name, call, taken_by) VALUES (?, ?, ?, '')
    ON CONFLICT (key) DO UPDATE SET task_name = excluded.task_name, call = excluded.call"""
_UNMARK = "DELETE FROM snappea_handover WHERE key = ? AND task_name = ?"
_KEYS = f"SELECT call FROM snappea_handover WHERE key = '{MOVING}' AND call <> ''"
#: Waiting unique calls: in the source those of a list of ids, in the target those with one of the keys.
_UNIQUE = statement("""
    SELECT id, unique_key FROM snappea_task
    WHERE id {ids} AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')""")
_TAKEN = statement("""
    SELECT unique_key FROM snappea_task WHERE unique_key {texts} AND status IN ('ready', 'scheduled')""")


class Table:
    """The statements that move the rows of a model, by their keys: the only unique column, or the ids."""

    def __init__(self, model: type[models.Model]) -> None:
        self.name = model._meta.db_table
        #: Tasks and batches keep their ids, which other rows mention.
        self.has_ids = model in (Task, Batch)
        columns = model._meta.concrete_fields
        self.fields = [each for each in columns if self.has_ids or not isinstance(each, models.AutoField)]
        self.key = next((each.column for each in self.fields if each.unique), "id")
        self.columns = ", ".join(f'"{each.column}"' for each in self.fields)
        of_keys = f"FROM {self.name} WHERE {self.key} {'{ids}' if self.key == 'id' else '{texts}'}"
        read = ", ".join(f'{{untyped}}"{each.column}"' for each in self.fields)
        self.read = statement(f"SELECT {read} {of_keys} ORDER BY {self.key}")
        self.delete = statement(f"DELETE {of_keys}")
        self.keys = statement(f"""
            SELECT {self.key} FROM {self.name} WHERE {self.key} >= ? AND NOT {_STAY.get(self.name, "{false}")}
            ORDER BY {self.key} LIMIT {CHUNK} {{for_update}}""")


def tables() -> list[Table]:
    """Return the tables that move: all but that of the Foremen."""
    found = apps.get_app_config(APP_LABEL).get_models()
    return [Table(model) for model in found if not model._meta.proxy and model is not Presence]


class Side:
    """A database that the queue leaves or enters. This one is SQLite. Use it inside queue_in()."""

    #: Returns the highest id that a table has given.
    last_id = "SELECT max(seq) FROM sqlite_sequence WHERE name = ?"

    def __init__(self, name: str, connection: BaseDatabaseWrapper) -> None:
        self.name, self.connection, self.db = name, connection, raw(connection)
        self._kept = database._thread.closer  # the other side's would replace it
        self._lock: Lock | None = None

    def keep_foremen_out(self) -> None:
        """Raise CannotStart or QueueUnavailable if a Foreman, or another move, works here."""
        if (file := file_of(self.connection)) is None:
            raise QueueUnavailable(f"the queue in {self.name!r} is in memory")
        self._lock = self._lock or Lock(file)

    def recover(self, db: RawConnection) -> None:
        """Settle the tasks that a dead Foreman left running."""
        if file := file_of(self.connection):
            recovery.recover(db, now(self.connection), logbook.read(file))

    def read(self, table: Table, keys: str) -> Iterable[Any]:
        """Return rows, as they are stored."""
        rows: Any = self.db.execute(table.read, (keys,))
        yield from rows

    def write(self, table: Table, rows: Iterable[Any]) -> None:
        """Insert rows."""
        values = ", ".join("?" * len(table.fields))
        self.db.executemany(f"INSERT INTO {table.name} ({table.columns}) VALUES ({values})", rows)

    def skip_to(self, db: RawConnection, table: str, number: int) -> None:
        """Let a table give only ids above a number."""
        db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return int(self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def leave(self) -> None:
        """Let Foremen in, if no mark refuses them."""
        if self._lock:
            self._lock.close()
        self.connection.close()


def queue_in(name: str) -> AbstractContextManager[Any]:
    """Let the queue be in another database for a block. No power cut undoes a commit there."""
    from django.test.utils import override_settings  # few processes need it

    configured = getattr(settings, "SNAPPEA", {})
    return override_settings(SNAPPEA={**configured, "DATABASE": name, "SYNCHRONOUS": "FULL"})


def side(name: str, creates: bool = False) -> Side:
    """Open a database of DATABASES. Raises QueueUnavailable. `creates`: create missing tables."""
    with queue_in(name), usable(looks_first=False):
        if (found := trouble()) and (creates or isinstance(found, Outdated)):
            call_command("migrate", APP_LABEL, database=name, verbosity=0)
            found = trouble()
        if found:
            raise found
        connections[name].close()  # it may have been opened with other settings
        connection = connect()
        is_sqlite = connection.vendor not in ADAPTERS
        kind: type[Side] = Side if is_sqlite else adapter(connection, "side").PostgresSide
        return kind(name, connection)


def move(source: Side, target: Side) -> Iterator[int]:
    """Move all rows, inside queue_in() of the source. Yield how many, after each chunk.

    It leaves unique calls while identical ones wait in the target, and tasks of a Foreman that has just died.
    Raises QueueUnavailable or CannotStart.
    """
    _begin(source, target)
    has_moved = True
    while has_moved:  # calls may have arrived meanwhile
        has_moved = False
        for table in tables():
            for count in _chunks(source, target, table):
                has_moved |= count > 0
                yield count
    with transact(target.connection) as db:
        db.execute(_UNMARK, (MOVING, source.name))


def _begin(source: Side, target: Side) -> None:
    """Keep Foremen out, also after a kill, and settle what a dead one left."""
    _keep_foremen_out(source, target)
    _require_free(source, target)
    _finish_chunk(source, target)
    with transact(target.connection) as db:
        db.execute(_UNMARK, (MOVED, source.name))
        db.execute(_MARK, (MOVING, source.name, ""))
    with transact(source.connection) as db:
        db.execute(_MARK, (MOVED, target.name, ""))
    _keep_foremen_out(source, target)  # one may have started before it could see the marks
    with transact(source.connection) as db:
        source.recover(db)
    for table in tables():
        if table.has_ids:
            name = (table.name,)
            last, there = (
                each.db.execute(each.last_id, name).fetchone()[0] or 0 for each in (source, target)
            )
            if there < last + ROOM // 2:
                with transact(target.connection) as db:
                    target.skip_to(db, table.name, last + ROOM)


def _keep_foremen_out(*sides: Side) -> None:
    for each in sides:
        with queue_in(each.name):
            each.keep_foremen_out()


def _require_free(source: Side, target: Side) -> None:
    """Raise QueueUnavailable if another move comes first, or if ids could collide."""
    zones = {str(each.connection.timezone) for each in (source, target)}
    if len(zones) > 1:
        raise QueueUnavailable(f"the databases have different time zones: {', '.join(sorted(zones))}")
    this, back = (source.name, target.name), (target.name, source.name)
    ours, theirs = moves(source.db, source.name), moves(target.db, target.name)
    for start, end in ours | {each for each in theirs if each[1] == target.name}:
        if (start, end) != this:
            raise QueueUnavailable(moves_first(start, end))
    if (
        this not in ours | theirs
        and back not in theirs
        and any(target.count(table.name) for table in tables() if table.has_ids)
    ):
        what = f"{target.name!r} has tasks of its own, and others would get their ids"
        raise QueueUnavailable(what, "move to a database without tasks")


def _finish_chunk(source: Side, target: Side) -> None:
    """Delete from the source what the target had committed before a kill."""
    for (text,) in target.db.execute(_KEYS).fetchall():
        name, keys = json.loads(text)
        with transact(source.connection) as db:
            for table in tables():
                if table.name == name:
                    db.execute(table.delete, (json.dumps(keys),))


def _chunks(source: Side, target: Side, table: Table) -> Iterator[int]:
    after: Any = 0 if table.key == "id" else ""
    while True:
        with transact(source.connection) as db:
            if not (found := [key for (key,) in db.execute(table.keys, (after,)).fetchall()]):
                return
            keys = found if table.name != "snappea_task" else _without_twins(source, target, found)
            text = json.dumps(keys)
            with transact(target.connection) as there:
                if table.key != "id":
                    there.execute(table.delete, (text,))
                target.write(table, source.read(table, text))
                there.execute(_MARK, (MOVING, source.name, json.dumps([table.name, keys])))
            db.execute(table.delete, (text,))
        after = found[-1] + 1 if table.key == "id" else ""
        yield len(keys)


def _without_twins(source: Side, target: Side, ids: list[int]) -> list[int]:
    """Return the ids of tasks without an identical unique call that waits in the target."""
    unique = dict(source.db.execute(_UNIQUE, (json.dumps(ids),)).fetchall())
    taken = {key for (key,) in target.db.execute(_TAKEN, (json.dumps([*unique.values()]),)).fetchall()}
    return [each for each in ids if unique.get(each) not in taken]
