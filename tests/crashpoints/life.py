"""A short life of a queue: processes that enqueue, and a Foreman. One of them meets a fault."""

import importlib
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from mmap import mmap
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import CommandError
from django.db import connections

from snappea.conf import current
from tests.playground.ledger import note

from . import kernel, promises, script
from .points import Point

NUM_WORKERS = 2
#: How long a process may last, in seconds.
DEADLINE = 60.0
#: Before which lines a Foreman is killed: the logbook's states are in memory, and no system calls.
TRACED = ("queue/logbook.py", "foreman/in_flight.py", "workers/threads.py", "workers/execute.py")
#: Calls without a file that count.
NAMELESS = ("poll", "clone", "clone3", "inotify_init1", "socketpair")
#: What the log says about a body, with its traceback.
_OF_BODIES = re.compile(
    r"^\S+ \S+ (INFO Finished|ERROR Failed|WARNING Retrying) (?s:.*?)(?=^\d{4}-|\Z)", re.MULTILINE
)


class Stalled(Exception):
    """A process does not end, or has ended when it should not."""


class Life:
    """One life in a directory, with the fault of a point.

    `seen`: how often there was which call of the target, or how many lines. `hit`: what met the fault.
    """

    def __init__(self, directory: Path, point: Point) -> None:
        self.directory, self.point = directory, point
        self.settings = {"SYNCHRONOUS": point.synchronous, "NUM_WORKERS": NUM_WORKERS, "IN_TESTS": "write"}
        self.seen: Counter[str] = Counter()
        self.hit = ""
        self._lines = mmap(-1, 8)
        self._alive: dict[int, str] = {}
        self._ended: dict[int, int] = {}
        self._listeners: dict[int, int] = {}

    def prepare(self) -> None:
        """Make the database with which each life begins, with a schedule that is due. Raises Stalled."""
        settings.DIR = self.directory
        self._wait_for(pid := self._start("", script.prepare))
        if self._ended[pid]:
            raise Stalled(self.output())
        for name in (self.directory / "modules").read_text().split():
            importlib.import_module(name)  # once, and not in each process
        with closing(sqlite3.connect(self.directory / "snappea.sqlite3")) as db:
            db.execute("UPDATE snappea_schedule SET next_run = '2026-01-01 00:00:00'")
            db.commit()

    def run(self, first: Path) -> list[str]:
        """Begin with the databases of a directory, live, and return the broken promises."""
        self.directory.mkdir()
        for database in first.glob("*.sqlite3"):
            shutil.copy(database, self.directory)
        settings.DIR = self.directory
        found = []
        try:
            self._live()
        except Stalled as error:
            found.append(str(error))
        finally:
            self._end()
        is_killed = self.hit and not self.point.error and self.point.target == "foreman"
        found += promises.Left(self.directory, NUM_WORKERS, NUM_WORKERS if is_killed else 0).broken()
        if "Traceback" in (output := _OF_BODIES.sub("", self.output())):
            found.append("an error without a sentence")
        return [*found, output] if found else []

    def output(self) -> str:
        """Return what the processes wrote."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.directory.glob("*.log")))

    def _live(self) -> None:
        self._wait_for(self._start("enqueuer", script.enqueue))
        foreman = self._start_foreman("foreman")
        foreman = self._wait_for(self._start("enqueuer", script.meddle), foreman)
        foreman = self._wait_for(self._start("closer", script.close), foreman)
        os.kill(foreman, signal.SIGTERM)
        self._wait_for(foreman)
        if code := self._ended[foreman]:
            if not self.hit or self.point.target != "foreman":
                raise Stalled(f"a Foreman ended with {code}")
            foreman = self._start_foreman("heir")  # after a fault in its last words
            foreman = self._wait_for(self._start("closer", script.close), foreman)
            os.kill(foreman, signal.SIGTERM)
            self._wait_for(foreman)

    # processes

    def _start_foreman(self, name: str) -> int:
        note("foreman", name)
        return self._start(name, script.foreman)

    def _start(self, name: str, function: Callable[[], None]) -> int:
        """Fork a process, and return its pid."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if not (pid := os.fork()):
                self._become(name, function, theirs)
            self._alive[pid] = name
            if name == self.point.target and self.point.calls:
                _byte, (listener,), *_rest = socket.recv_fds(ours, 1, 1)
                self._listeners[listener] = pid
        return pid

    def _become(self, name: str, function: Callable[[], None], to: socket.socket) -> None:
        """Do what a process does, and end."""
        kernel.die_with_parent()
        log = os.open(self.directory / f"{time.monotonic()}-{name}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        settings.SNAPPEA = self.settings
        current.cache_clear()
        for alias in connections:
            connections[alias].settings_dict["NAME"] = str(self.directory / f"{alias}.sqlite3")
        code: Any = 1
        try:
            if name == self.point.target and self.point.calls:
                kernel.submit(self.point.calls, to)
            elif name == self.point.target:
                self._trace()
            function()
            connections.close_all()
            code = 0
        except SystemExit as end:
            code = end.code
        except (CommandError, AssertionError) as error:
            print(error, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)

    def _trace(self) -> None:
        """Count lines of this process, and kill it before that of the point."""
        lock, lines, at = threading.Lock(), self._lines, self.point.at

        def trace(frame: Any, event: str, _argument: Any) -> Any:
            if not frame.f_code.co_filename.endswith(TRACED):
                return None
            if event == "line":
                with lock:
                    count = int.from_bytes(lines[:8], "little") + 1
                    lines[:8] = count.to_bytes(8, "little")
                    if count == at:
                        os.kill(os.getpid(), signal.SIGKILL)
            return trace

        threading.settrace(trace)
        sys.settrace(trace)

    def _wait_for(self, pid: int, foreman: int = 0) -> int:
        """Wait for the end of a process. If the Foreman ends, start another. Return the last one."""
        give_up = time.monotonic() + DEADLINE
        while pid in self._alive:
            self._attend()
            if foreman and foreman not in self._alive:
                if not self.hit or self.point.target != "foreman":
                    raise Stalled(f"the Foreman has ended with {self._ended[foreman]}")
                foreman = self._start_foreman("heir")
            if time.monotonic() > give_up:
                raise Stalled(f"these do not end: {self._alive.values()}")
        if foreman and self._ended[pid] > 0:
            raise Stalled(f"a process has ended with {self._ended[pid]}")
        return foreman

    def _attend(self) -> None:
        """Answer calls, and note which processes have ended."""
        for listener in select.select(list(self._listeners), [], [], 0.003)[0]:
            if call := kernel.receive(listener):
                self._answer(listener, call)
        while self._alive and (found := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = found
            del self._alive[pid]
            self._ended[pid] = os.waitstatus_to_exitcode(status)
            for listener in [one for one, other in self._listeners.items() if other == pid]:
                del self._listeners[listener]
                os.close(listener)
        if not self.point.calls:
            self.seen["line"] = int.from_bytes(self._lines[:8], "little")
            self.hit = "a line" if 0 < self.point.at <= self.seen["line"] else ""

    def _answer(self, listener: int, call: kernel.Call) -> None:
        is_hit = False
        if self._counts(call):
            self.seen[call.name] += 1
            is_hit = self.seen.total() == self.point.at
        if not is_hit:
            return kernel.answer(listener, call)
        self.hit = f"{call.name} {call.path.removeprefix(f'{self.directory}/')}"
        if self.point.error:
            kernel.answer(listener, call, self.point.error)
        else:
            os.kill(self._listeners[listener], signal.SIGKILL)

    def _counts(self, call: kernel.Call) -> bool:
        """Tell whether it is a call of the queue, or of a body. An error of a body is its own."""
        if not call.path:
            return call.name in NAMELESS
        ignored = (".log", "ledger") if self.point.what not in ("kill", "line") else (".log",)
        return call.path.startswith(f"{self.directory}/") and not call.path.endswith(ignored)

    def _end(self) -> None:
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for listener in self._listeners:
            os.close(listener)
        self._alive.clear()
        self._listeners.clear()
        self._lines.close()
