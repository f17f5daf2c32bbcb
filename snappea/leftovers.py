"""What a task leaves behind in its thread, and how that is undone."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from inspect import unwrap
from logging import ERROR, WARNING
from types import FunctionType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from django.core.cache import caches
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from .conf import alias
from .database import forget
from .log import say

P = ParamSpec("P")
R = TypeVar("R")

#: In which methods a backend of others may put on a connection what is not to be undone.
_CONNECTING = {"connect", "get_connection_params", "get_new_connection", "init_connection_state"}
#: How many variables `context.begin()` sets in a task's context.
OURS = 2


class Known(NamedTuple):
    """A connection of this thread, and what was on it when it was made.

    `backends`: the names of that which are not Django's. `is_queues`: it is the queue's own database.
    """

    connection: Any
    before: dict[str, Any]
    backends: frozenset[str]
    is_queues: bool


class _Thread(threading.local):
    def __init__(self) -> None:
        #: What Django has for this thread; and closed connections that it has not any more, by alias.
        self.known: list[Known] = []
        self.spare: dict[str, Known] = {}


_thread = _Thread()


def _note(connection: Any) -> None:
    before = dict(vars(connection))
    is_djangos = type(connection).__module__.startswith("django.")
    backends = frozenset() if is_djangos else frozenset(before.keys() - _names_of_django())
    is_queues = connection.alias == alias() != DEFAULT_DB_ALIAS
    _thread.known.append(Known(connection, before, backends, is_queues))


@cache
def _names_of_django() -> set[str]:
    """Return the names of the attributes that Django itself puts on a connection."""
    from django.db.backends.sqlite3.base import DatabaseWrapper

    return set(vars(DatabaseWrapper({**connections.settings[DEFAULT_DB_ALIAS]}, DEFAULT_DB_ALIAS)))


@cache
def _names_in_use(kind: type[Any]) -> set[str]:
    """Return the names of the attributes that a backend puts on a connection while that is used."""
    names = set(dir(kind)) | {"snappea_file", "snappea_link"}
    for base in kind.__mro__:
        is_djangos = base.__module__.startswith("django.")
        for name, function in vars(base).items():
            if isinstance(function, FunctionType) and (is_djangos or name in _CONNECTING):
                names |= set(unwrap(function).__code__.co_names)
    return names


def _noting(create: Callable[[str], Any]) -> Callable[[str], Any]:
    def create_connection(alias: str) -> Any:
        spare = _thread.spare.pop(alias, None)
        if spare and spare.connection.settings_dict is connections.settings[alias] and not _is_marked(spare):
            _thread.known.append(spare)  # as good as new, and three times as fast
            return spare.connection
        connection = create(alias)
        _note(connection)
        return connection

    return create_connection


# before a task can set anything on it: the signal below comes when it connects, which may be later
connections.create_connection = _noting(connections.create_connection)  # type: ignore[method-assign,assignment]


@receiver(connection_created)
def _note_connection(connection: Any, **kwargs: Any) -> None:
    if not any(known.connection is connection for known in _thread.known):
        _note(connection)


def tidy_connections() -> None:
    """Undo what a task left on the connections of this thread.

    Does what Django does around a request: rolls back, closes connections that are due for it, and empties
    the log of queries. And no task sees what another one set on a connection, such as a tenant. Never raises.
    """
    if not _thread.known:
        return  # asking Django for each connection would cost more than a short task
    for known in list(_thread.known):
        connection = known.connection
        try:
            connection.queries_log.clear()
            if connection.in_atomic_block or getattr(connection.connection, "in_transaction", False):
                say(ERROR, "A task left a transaction open on %r; it is rolled back.", connection.alias)
                # as if there were no transaction: otherwise close() leaves that to its end
                connection.in_atomic_block = connection.closed_in_transaction = False
                connection.close()
            else:
                connection.close_if_unusable_or_obsolete()
            if connection.connection is None:
                _take_away(known)
                _thread.spare[connection.alias] = known
            elif _is_marked(known):
                connection.close()
                _take_away(known)
        except Exception as error:
            say(ERROR, "Could not tidy up the connection %r: %r", connection.alias, error)


def _is_marked(known: Known) -> bool:
    """Tell whether there is something on a connection that neither Django nor its backend put there."""
    connection, before, backends, is_queues = known
    if is_queues:
        return False
    here = vars(connection)
    kind: Any = type(connection)
    return bool(
        connection.execute_wrappers
        or connection.force_debug_cursor
        or any(here.get(name) is not before[name] for name in backends)
        or not here.keys() - before.keys() <= _names_in_use(kind)
    )


def _take_away(known: Known) -> None:
    """Have Django ask for another connection in the place of a closed one."""
    connection = known.connection
    _thread.known.remove(known)
    if not known.is_queues:
        forget(connection)
        with suppress(AttributeError):  # the task has taken it away itself
            del connections[connection.alias]


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
