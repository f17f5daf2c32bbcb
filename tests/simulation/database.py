"""A SQLite connection that gives way before each statement. Its commits may fail."""

import sqlite3
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Protocol

from .timeline import Process, Timeline

#: How long a process waits for the write lock, in seconds.
PATIENCE = 5.0
#: How often it looks, in seconds.
LOOK_EVERY = 0.003


class World(Protocol):
    """What a connection belongs to."""

    timeline: Timeline
    #: The connection that has a write transaction open.
    writer: "Connection | None"

    def committed(self, by: Process) -> None:
        """Called right after each commit."""

    def has_read(self, by: Process) -> None:
        """Called after each query of Django's ORM."""

    def fault_of_commit(self, by: Process) -> str:
        """Return "" or how a commit fails: "before", or "after" it was done."""


#: The world that is simulated; None: connections are ordinary ones.
world: World | None = None


def use(new: World | None) -> None:
    """Let all connections belong to a world."""
    global world
    world = new


@cache
def _kind(sql: str) -> str:
    verb = sql.lstrip()[:8].upper()
    if verb.startswith(("BEGIN", "COMMIT", "ROLLBACK")):
        return "ROLLBACK TO" if "TO " in sql.upper() else verb.split()[0]
    if verb.startswith(("PRAGMA", "SAVEPOIN", "RELEASE")):
        return "free"
    return "read" if verb.startswith(("SELECT", "WITH")) and "UPDATE" not in sql else "write"


class Connection(sqlite3.Connection):
    """For OPTIONS["factory"]."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        return self._step(sql, lambda: super(Connection, self).execute(sql, parameters))

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        rows = list(parameters)
        if not rows:
            return super().executemany(sql, rows)
        return self._step(sql, lambda: super(Connection, self).executemany(sql, rows))

    def _step(self, sql: str, run: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        here, kind = world, _kind(sql)
        if here is None or kind in ("free", "ROLLBACK TO"):
            return run()
        if kind == "ROLLBACK":
            here.writer = None
            return run()
        me = here.timeline.current
        here.timeline.pause(me.next_pause())
        if kind == "COMMIT":
            return self._commit(here, me, run)
        if kind == "read" or self.in_transaction:
            return run()
        self._take_lock(here)
        if kind == "BEGIN":
            return run()
        try:
            done = run()
        finally:
            here.writer = None
        here.committed(me)
        here.timeline.pause(me.next_pause())
        return done

    def _take_lock(self, here: World) -> None:
        give_up = here.timeline.now + PATIENCE
        while here.writer is not None:
            if here.timeline.now > give_up:
                raise sqlite3.OperationalError("database is locked")
            here.timeline.pause(LOOK_EVERY)
        here.writer = self

    def _commit(self, here: World, me: Process, run: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        fault = here.fault_of_commit(me)
        if fault == "before":
            raise sqlite3.OperationalError("database or disk is full")
        done = run()
        here.writer = None
        here.committed(me)
        here.timeline.pause(me.next_pause())
        if fault:
            raise sqlite3.OperationalError("disk I/O error: the commit was not synced")
        return done


def give_way(execute: Callable[..., Any], *arguments: Any) -> Any:
    """Do the same before a statement of Django's ORM: a wrapper of its statements."""
    if world is None:
        return execute(*arguments)
    me = world.timeline.current
    world.timeline.pause(me.next_pause())
    done = execute(*arguments)
    world.has_read(me)
    return done
