"""A new start of the Foreman under the same pid: when it is due, and how a process does it."""

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from logging import WARNING

from ..conf import Settings
from ..log import say
from ..memory import limit_in_bytes, resident
from ..queue.database import MEGABYTE
from ..workers.execute import close_connections
from .in_flight import InFlight

#: How long what the process still has to do at its end may take, in seconds.
FAREWELL = 5.0


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return "."


#: The directory in which the process was started: its command line may hold relative paths.
HOME = _here()


class Restart:
    """Tells whether a Foreman is to start anew, and why."""

    def __init__(self, settings: Settings, in_flight: InFlight) -> None:
        """Log a warning if a fresh Foreman already has more memory than MAX_MEMORY."""
        self._in_flight = in_flight
        self._most = settings.MAX_TASKS or sys.maxsize
        #: Wakes the Foreman; may be set, and is called by other threads.
        self.nudge: Callable[[], None] = lambda: None
        self._limit = limit_in_bytes(settings.MAX_MEMORY)
        self._due = self._called_for = ""
        if self._limit and (has := resident()) > self._limit:
            say(
                WARNING,
                "MAX_MEMORY is %d MB, but the Foreman has %d MB before its first task: it is disregarded.",
                self._limit // MEGABYTE,
                has // MEGABYTE,
            )
            self._limit = None

    @property
    def allowance(self) -> int:
        """How many more tasks may be started before."""
        return self._most - self._in_flight.started

    def room(self) -> int:
        """Return how many tasks may be claimed in all, threads and event loop together."""
        return min(self._in_flight.count_free(), self.allowance)

    def look(self) -> None:
        """Look at the memory; not before the first task: a new start would bring nothing."""
        if self._limit and self._in_flight.started and not self._due and (has := resident()) > self._limit:
            self._due = f"it has {has // MEGABYTE} MB of memory (MAX_MEMORY: {self._limit // MEGABYTE} MB)"

    def why(self, backlog: int) -> str:
        """Return why the Foreman is to start anew, or "". `backlog`: how many tasks are about to start."""
        if self.allowance <= 0 and not backlog and not self._due:
            self._due = f"it has started {self._most} tasks (MAX_TASKS)"
        return self._due or self._called_for

    def call_for(self, why: str) -> None:
        """Have the Foreman start anew; "" calls that off, if it is not too late. For other threads."""
        self._called_for = why
        self.nudge()

    def waive(self) -> None:
        """Let the Foreman start as many tasks as it likes from now on."""
        self._most = sys.maxsize


def command_line() -> list[str]:
    """Return what started this process, with the options that Python itself was given."""
    return [sys.executable, *sys.orig_argv[1:]]


def start_anew(at_once: bool) -> None:
    """Replace this process by a fresh one of the same command line and the same pid.

    `at_once`: without what is registered with atexit, because tasks still run. Raises OSError if
    there is nothing that could be started; there is no way back all the same.
    """
    close_connections()
    if at_once:
        logging.shutdown()
    else:
        guard = threading.Timer(FAREWELL, _execute)
        guard.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread to be had
            guard.start()
        atexit._run_exitfuncs()  # no end of a process, but one of all that was loaded into it
        guard.cancel()
    _execute()


def _execute() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or nobody reads it any more
            stream.flush()
    with contextlib.suppress(OSError):
        os.chdir(HOME)
    os.execv(sys.executable, command_line())
