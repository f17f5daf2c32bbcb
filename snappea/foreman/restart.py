"""The restart of the Foreman under the same pid: when it is due, and how the process does it."""

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from logging import WARNING

from ..conf import Settings
from ..log import say
from ..memory import limit_in_bytes, resident
from ..queue.database import MEGABYTE
from ..workers.cleanup import close_connections
from .in_flight import InFlight

#: How long the functions that are registered with atexit may take, in seconds.
FAREWELL = 5.0
#: The directory in which the process was started: its command line may contain relative paths.
HOME = "."
with suppress(OSError):  # it was deleted
    HOME = os.getcwd()


class Restart:
    """Knows why the Foreman is to restart, if it is."""

    def __init__(self, settings: Settings, in_flight: InFlight) -> None:
        """Log a warning if the Foreman exceeds MAX_MEMORY before its first task: a restart would not help."""
        self._in_flight = in_flight
        #: How many tasks may be started before a restart.
        self.most = settings.MAX_TASKS or sys.maxsize
        #: Wakes the Foreman. The loop sets it, and other threads call it.
        self.nudge: Callable[[], None] = lambda: None
        self._limit = limit_in_bytes(settings.MAX_MEMORY)
        #: Why a restart is due; "" if none is.
        self.due = ""
        if self._limit and (has := resident()) > self._limit:
            say(
                WARNING,
                "MAX_MEMORY is %d MB, but the Foreman has %d MB before its first task: it is disregarded.",
                self._limit // MEGABYTE,
                has // MEGABYTE,
            )
            self._limit = None

    def look(self) -> None:
        """Check the memory; not before the first task, when a restart would not help."""
        if self._limit and self._in_flight.started and not self.due and (has := resident()) > self._limit:
            self.due = f"it has {has // MEGABYTE} MB of memory (MAX_MEMORY: {self._limit // MEGABYTE} MB)"

    def request(self, why: str) -> None:
        """Make the Foreman restart. May be called by any thread."""
        self.due = why
        self.nudge()

    def waive(self) -> None:
        """Let the Foreman start any number of tasks from now on."""
        self.most = sys.maxsize


def restart_process(at_once: bool) -> None:
    """Replace this process by a new one with the same command line and the same pid.

    `at_once`: skip what is registered with atexit, because tasks still run. Raises OSError if nothing can be
    started; the process must end then.
    """
    close_connections()
    if at_once:
        logging.shutdown()
    else:
        guard = threading.Timer(FAREWELL, _execute)
        guard.daemon = True
        with suppress(RuntimeError):  # no thread can be started
            guard.start()
        atexit._run_exitfuncs()  # the process goes on, but all that was loaded into it ends
        guard.cancel()
    _execute()


def _execute() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or a broken pipe
            stream.flush()
    with suppress(OSError):
        os.chdir(HOME)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
