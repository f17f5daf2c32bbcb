"""Restart the Foreman under the same pid: when, and how."""

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
from ..workers.processes.fork_server import HOME
from .in_flight import InFlight

#: How long the functions registered with atexit may take, in seconds.
FAREWELL = 5.0


class Restart:
    """Whether the Foreman must restart, and why."""

    def __init__(self, settings: Settings, in_flight: InFlight) -> None:
        """Log a warning if the Foreman exceeds MAX_MEMORY before its first task: a restart would not help."""
        self._in_flight = in_flight
        #: How many tasks to start before a restart.
        self.most = settings.MAX_TASKS or sys.maxsize
        #: Wakes the Foreman. Set by the loop, called by other threads.
        self.nudge: Callable[[], None] = lambda: None
        self._limit = limit_in_bytes(settings.MAX_MEMORY)
        #: Why a restart is due, or "".
        self.due = ""
        if self._limit and (has := resident()) > self._limit:
            say(
                WARNING,
                "MAX_MEMORY is %d MB, but the Foreman uses %d MB before its first task: it is ignored.",
                self._limit // MEGABYTE,
                has // MEGABYTE,
            )
            self._limit = None

    def look(self) -> None:
        """Check the memory, once a task has started: before, a restart would not help."""
        if self._limit and self._in_flight.started and not self.due and (has := resident()) > self._limit:
            self.due = f"it uses {has // MEGABYTE} MB of memory (MAX_MEMORY: {self._limit // MEGABYTE} MB)"

    def request(self, why: str) -> None:
        """Request a restart. Any thread may call this."""
        self.due = why
        self.nudge()


def restart_process(at_once: bool) -> None:
    """Replace this process with a new one, with the same command line and the same pid.

    `at_once`: skip the atexit functions, because tasks still run. Raises OSError if the new one cannot be
    started; then this process must end.
    """
    close_connections()
    if at_once:
        logging.shutdown()
    else:
        guard = threading.Timer(FAREWELL, _execute)
        guard.daemon = True
        with suppress(RuntimeError):  # no thread can be started
            guard.start()
        atexit._run_exitfuncs()  # execv() would skip them
        guard.cancel()
    _execute()


def _execute() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or a broken pipe
            stream.flush()
    with suppress(OSError):
        os.chdir(HOME)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
