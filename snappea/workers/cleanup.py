"""Clean up what a task leaves behind in its thread."""

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
from ..queue.database import close_with_connection, forget
from ..tasks.context import VARIABLES

P = ParamSpec("P")
R = TypeVar("R")

#: The attributes that Snappea, and Django's backends when they connect, set on a connection.
_IN_USE = {"init_commands", "isolation_level", "transaction_mode"}
_IN_USE |= {"snappea_file", "snappea_link", "snappea_writing"}


class _Thread(threading.local):
    def __init__(self) -> None:
        #: The connections that this thread has used, by alias: asking Django takes longer than a short task.
        self.used: dict[str, Any] = {}


_thread = _Thread()


@receiver(connection_created)
def _note_connection(connection: Any, **kwargs: Any) -> None:
    _thread.used[connection.alias] = connection


def _note_wrappers(create: Callable[[str], Any]) -> None:
    """Note each connection when Django makes its wrapper: a task may mark one, and never open it."""

    def create_connection(alias: str) -> Any:
        connection = _thread.used[alias] = create(alias)
        return connection

    connections.create_connection = create_connection  # type: ignore[method-assign]


_note_wrappers(connections.create_connection)


def tidy_connections() -> None:
    """Clean up the connections that this thread has used. Never raises.

    As Django does around a request: roll back, close connections that are too old, and empty the query log.
    Also, replace a connection on which a task has set something, such as a tenant.
    """
    for connection in list(_thread.used.values()):
        try:
            _tidy(connection)
        except Exception as error:
            say(ERROR, "Could not clean up the connection %r: %r", connection.alias, error)


def _tidy(connection: Any) -> None:
    connection.queries_log.clear()
    if connection.in_atomic_block or getattr(connection.connection, "in_transaction", False):
        say(ERROR, "A task left a transaction open on %r; it is rolled back.", connection.alias)
        # otherwise close() waits for the end of the transaction
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
    """Return whether a task has set something on a connection. In doubt, it has: a new one is cheap."""
    here: dict[str, Any] = vars(connection)
    kind: Any = type(connection)
    known, initial = _unmarked(kind, connection.alias)
    return bool(
        connection.execute_wrappers
        or connection.force_debug_cursor
        or here.keys() - known
        or any(here.get(name) != value for name, value in initial.items())
    )


@cache
def _unmarked(kind: Any, alias: str) -> tuple[set[str], dict[str, Any]]:
    """Return the names of an unmarked connection's attributes, and the values of those that never change."""
    from django.db.backends.sqlite3.base import DatabaseWrapper

    wrapper: Any = DatabaseWrapper
    djangos = vars(wrapper(connections.settings[DEFAULT_DB_ALIAS], DEFAULT_DB_ALIAS))  # Django changes them
    unused = vars(kind(connections.settings[alias], alias))
    known = {*unused, *dir(kind), *_IN_USE}
    return known, {name: value for name, value in unused.items() if name not in djangos}


def close_connections() -> None:
    """Close this thread's connections. Never raises."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
        except Exception as error:
            say(WARNING, "Could not close the connection %r: %r", connection.alias, error)
    close_with_connection()


def close_caches(context: contextvars.Context) -> None:
    """Close the caches that were used in a context, as Django does after a request. Never raises."""
    if len(context) > len(VARIABLES):  # closing them takes longer than the rest of a short task
        try:
            context.run(caches.close_all)
        except BaseException as error:
            say(WARNING, "Could not close the caches: %r", error)


class TidyThreads(ThreadPoolExecutor):
    """Threads that clean up their connections after each call."""

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Call a function in one of the threads."""

        def call() -> R:
            try:
                return function(*args, **kwargs)
            finally:
                tidy_connections()

        return super().submit(call)
