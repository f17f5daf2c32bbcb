"""Wakeups by NOTIFY, which costs the server a lock at each commit and each listener a transaction.

So it is sent after the commit, and a process that enqueues without a pause sends few of them.
"""

import logging
import threading
import time
from collections.abc import Callable

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..log import say_once
from ..queue.database import UNUSABLE, raw
from ..queue.files import at_fork

#: How often a process may notify, in seconds, after MOST_AT_ONCE notifications without a pause.
EVERY = 0.005
MOST_AT_ONCE = 10


class Ringer:
    """Decides when this process notifies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = 0.0  # when a pause would have made up for all notifications
        self._sent = 0
        self._is_owed = self._is_watched = False
        self._alias = ""

    def ring(self, connection: BaseDatabaseWrapper) -> None:
        """Notify the Foremen now, or within a few milliseconds if this process has just done so."""
        here = time.monotonic()
        with self._lock:
            self._alias = connection.alias
            is_due = self._free_at <= here + MOST_AT_ONCE * EVERY or raw(connection).in_transaction
            self._is_owed = not is_due
            if is_due:
                self._free_at = max(self._free_at, here) + EVERY
                self._sent += 1
            elif not self._is_watched:
                self._is_watched = _is_started(self._send_last)
                is_due = not self._is_watched
        if is_due:
            _notify(connection)

    def _send_last(self) -> None:
        """Notify for the last calls, once no further call does. The interpreter waits for this thread."""
        while True:
            sent = self._sent
            time.sleep(2 * EVERY)
            with self._lock:
                if not self._is_owed or self._sent == sent:
                    is_owed, self._is_owed, self._is_watched = self._is_owed, False, False
                    break
        if is_owed:
            _notify(connections[self._alias])
            connections.close_all()  # only those of this thread


def _is_started(target: Callable[[], None]) -> bool:
    try:
        threading.Thread(target=target, name="snappea-ringer").start()
    except RuntimeError:  # the interpreter ends, or the system allows no more threads
        return False
    return True


def _notify(connection: BaseDatabaseWrapper) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("NOTIFY snappea")
    except UNUSABLE as error:
        message = "Cannot notify (%s); the Foremen still check every few seconds."
        say_once(logging.WARNING, message, error, logger=logging.getLogger("snappea.wakeup"))


_ringer = Ringer()


def ring(connection: BaseDatabaseWrapper) -> None:
    """Wake the Foremen of a queue. Never raises."""
    _ringer.ring(connection)


def _begin_again() -> None:
    global _ringer
    _ringer = Ringer()  # a child has none of its parent's threads


at_fork(after_in_child=_begin_again)
