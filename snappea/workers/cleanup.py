"""What a task leaves behind in its thread, and how that is undone."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from logging import ERROR, WARNING
from typing import Any, ParamSpec, TypeVar

from django.core.cache import caches
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from ..conf import alias
from ..log import say
from ..queue.database import forget

P = ParamSpec("P")
R = TypeVar("R")

#: How many variables `context.begin()` sets in a task's context.
OURS = 2
#: What we, and Django's backends when they connect, put on a connection.
_IN_USE = {"snappea_file", "snappea_link", "init_commands", "isolation_level", "transaction_mode"}


class _Thread(threading.local):
    def __init__(self) -> None:
        #: The connections that this thread has used, by alias. To ask Django costs more than a short task.
        self.used: dict[str, Any] = {}


_thread = _Thread()


@receiver(connection_created)
def _note_connection(connection: Any, **kwargs: Any) -> None:
    _thread.used[connection.alias] = connection


def tidy_connections() -> None:
    """Undo what a task left on the connections that this thread has used.

    Does what Django does around a request: rolls back, closes connections that are due for it, and empties
    the log of queries. And no task sees what another one set on a connection, such as a tenant. Never raises.
    """
    for connection in list(_thread.used.values()):
        try:
            _tidy(connection)
        except Exception as error:
            say(ERROR, "Could not tidy up the connection %r: %r", connection.alias, error)


def _tidy(connection: Any) -> None:
    connection.queries_log.clear()
    if connection.in_atomic_block or getattr(connection.connection, "in_transaction", False):
        say(ERROR, "A task left a transaction open on %r; it is rolled back.", connection.alias)
        # as if there were no transaction: otherwise close() leaves that to its end
        connection.in_atomic_block = connection.closed_in_transaction = False
        connection.close()
    else:
        connection.close_if_unusable_or_obsolete()
    if not connection.alias == alias() != DEFAULT_DB_ALIAS and _is_marked(connection):
        connection.close()
        forget(connection)
        unused = connections.create_connection(connection.alias)
        connections[connection.alias] = _thread.used[connection.alias] = unused


def _is_marked(connection: Any) -> bool:
    """Return whether there is something on a connection that neither Django nor its backend put there.

    If in doubt it is: then the next task gets a new connection, which costs time and nothing else.
    """
    here: dict[str, Any] = vars(connection)
    kind: Any = type(connection)
    unused = _unused(kind, connection.alias)
    return bool(
        connection.execute_wrappers
        or connection.force_debug_cursor
        or here.keys() - unused.keys() - _attributes_of(kind)
        or any(here.get(name) != unused[name] for name in unused.keys() - _djangos())
    )


@cache
def _unused(kind: type[Any], alias: str) -> dict[str, Any]:
    """Return the attributes of a connection that has not been used."""
    unused: dict[str, Any] = vars(kind(connections.settings[alias], alias))
    return unused


@cache
def _attributes_of(kind: type[Any]) -> set[str]:
    """Return what may appear on a connection while it is used, cached properties for example."""
    return {*dir(kind), *_IN_USE}


@cache
def _djangos() -> set[str]:
    """Return the attributes of each connection that are Django's own to change."""
    from django.db.backends.sqlite3.base import DatabaseWrapper

    kind: Any = DatabaseWrapper
    return set(_unused(kind, DEFAULT_DB_ALIAS))


def close_connections() -> None:
    """Close this thread's connections, whatever they say to that."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
        except Exception as error:
            say(WARNING, "Could not close the connection %r: %r", connection.alias, error)


def close_caches(context: contextvars.Context) -> None:
    """Close the caches that were used in a context, as Django does after a request. Never raises."""
    if len(context) > OURS:
        try:
            context.run(caches.close_all)
        except BaseException as error:
            say(WARNING, "Could not close the caches: %r", error)


class TidyThreads(ThreadPoolExecutor):
    """Threads in which nothing is left on a connection after a call."""

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Call a function in one of the threads."""
        return super().submit(_call_and_tidy, function, args, kwargs)


def _call_and_tidy(function: Callable[..., R], args: Any, kwargs: Any) -> R:
    try:
        return function(*args, **kwargs)
    finally:
        tidy_connections()
