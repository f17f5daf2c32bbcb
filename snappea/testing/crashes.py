"""Kills a task after each of its lines, repeats it, and compares what is left: `crash_everywhere()`."""

import difflib
import gc
import inspect
import linecache
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing import Pipe
from pathlib import Path
from pprint import pformat
from types import FrameType
from typing import Any, NamedTuple, Self

from django.conf import settings
from django.core import mail
from django.db.models import QuerySet
from django.db.models.query import ModelIterable
from django.test.utils import override_settings

from ..conf import tests_run
from ..monitoring.tracebacks import is_library
from ..queue.files import IS_UNIX, NEEDS_UNIX
from ..queue.records import Call, Outcome
from ..tasks.function import TaskFunction
from ..tasks.memory_engine import MEMORY
from ..workers.execute import execute
from ..workers.limits import Handle
from .copies import Copies

#: How long a run may take, in seconds.
TIMEOUT = 60.0


@cache
def _is_own(file: str) -> bool:
    return not file.startswith("<") and not is_library(file)


class Point(NamedTuple):
    """Where a process can be killed: before a line, after the last line of a function, or at the end."""

    #: How many there were before.
    number: int
    event: str
    file: str
    line: int
    #: How often it has come to this event at this line.
    times: int
    #: The line that has run.
    after: tuple[str, int]


class Tracer:
    """Finds the points, the first and the last at each line, and kills the process at one of them."""

    def __init__(self, target: Point | None, kill: Callable[[], object]) -> None:
        self._target, self._kill = target and target[1:5], kill
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._after: tuple[str, int] | None = None
        self._points: dict[object, Point] = {}

    def points(self) -> list[Point]:
        """Return them in the order in which they were reached."""
        return sorted(self._points.values())

    def __enter__(self) -> Self:
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        code = frame.f_code
        if event == "call":  # a module or class has no CO_OPTIMIZED: an import is no part of the task
            is_own = code.co_flags & inspect.CO_OPTIMIZED and _is_own(code.co_filename)
            return self._trace if is_own else None
        if event in ("line", "return"):
            self._reach(event, code.co_filename, frame.f_lineno)
        return self._trace

    def end(self) -> None:
        """Reach the last point, after the task."""
        if self._after:
            self._reach("end", *self._after)

    def _reach(self, event: str, file: str, line: int) -> None:
        key = event, file, line
        self._counts[key] += 1
        after = self._after if event == "line" else (file, line)
        self._after = file, line
        if after is None:
            return
        point = Point(self._counts.total(), *key, self._counts[key], after)
        self._points[key, point.times == 1] = point
        if point[1:5] == self._target:
            self._kill()


class Report(NamedTuple):
    """What a run has left: as text, or the error; and, if it was killed, what the next one remembers."""

    left: str = ""
    error: str = ""
    points: Sequence[Point] = ()
    memory: tuple[Any, ...] | None = None


def _failed(error: str) -> Report:
    return Report(error, error)


class Crashes:
    """Runs a call again and again, in child processes, on copies of the databases."""

    def __init__(
        self, task: TaskFunction[..., Any], call: Call, check: Callable[[], object] | None, files: list[Path]
    ) -> None:
        if not IS_UNIX:
            raise RuntimeError(NEEDS_UNIX)
        if not tests_run():
            raise RuntimeError("crash_everywhere() works in tests only.")
        self._task, self._call, self._check, self._files = task, call, check, files

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="snappea-")
        self._copies = Copies(Path(self._directory.name), self._files)
        return self

    def __exit__(self, *_: object) -> None:
        self._copies.drop()
        self._directory.cleanup()

    def run(self) -> int:
        """Return the number of crashes. Raises AssertionError."""
        __tracebackhide__ = True  # pytest shows the test instead
        name = self._task.name
        clean, other = self._start(), self._start()
        if clean.error:
            raise AssertionError(f"{name} fails even without a crash:\n{clean.error}")
        if clean.left != other.left:
            why = "leaves something else each time. Let `check` return what is always the same"
            raise AssertionError(f"{name} {why}:\n{_difference(clean, other)}")
        for point in clean.points:
            killed = self._start(point)
            again = self._fork(None, killed.memory) if killed.memory else killed  # it did not come there
            if again.left != clean.left:
                harm = "fails" if again.error else "leaves something else than without a crash"
                why = again.error or _difference(clean, again)
                raise AssertionError(
                    f"{name} was killed after {_shown(point)}\nand run again. It {harm}:\n{why}"
                )
        return len(clean.points)

    def _start(self, target: Point | None = None) -> Report:
        self._copies.renew()
        return self._fork(target, None)

    def _fork(self, target: Point | None, memory: tuple[Any, ...] | None) -> Report:
        """Run an attempt in a child."""
        receiver, sender = Pipe(duplex=False)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads: the child never needs theirs
            pid = os.fork()
        if pid == 0:
            gc.disable()  # it would copy the parent's memory
            try:
                sender.send(self._attempt(target, memory, sender.send))
            except BaseException:
                sender.send(_failed(traceback.format_exc()))
            finally:
                os._exit(0)
        sender.close()
        try:
            return receiver.recv() if receiver.poll(TIMEOUT) else _failed(f"It takes {TIMEOUT:g} s.")
        except EOFError:
            return _failed("It has ended its process.")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            receiver.close()

    def _attempt(
        self, target: Point | None, memory: tuple[Any, ...] | None, send: Callable[[Report], None]
    ) -> Report:
        self._copies.use()
        override_settings(SNAPPEA={**getattr(settings, "SNAPPEA", {}), "IN_TESTS": "collect"}).enable()
        if memory:
            call_id, state, mail.outbox = memory
            MEMORY.resume(state)
        else:
            call_id, _is_new = MEMORY.enqueue(self._call)

        def die() -> None:
            for message in mail.outbox:
                message.connection = None
            send(Report(memory=(call_id, MEMORY.state(), mail.outbox)))
            os.kill(os.getpid(), signal.SIGKILL)

        with Tracer(target, die) as tracer:
            outcome = self._run(call_id)
        if outcome.error:
            return _failed(outcome.error)
        tracer.end()
        MEMORY.settle(outcome)
        return Report(self._left(), points=tracer.points())

    def _run(self, call_id: int) -> Outcome:
        while True:
            outcome = execute(MEMORY.start_again(call_id), Handle(), self._task)
            if outcome.retry_after is None:
                return outcome
            MEMORY.settle(outcome)

    def _left(self) -> str:
        left: dict[str, Any] = {}
        if self._check:
            left["check"] = _plain(self._check())
        else:
            left["new rows"] = self._copies.new_rows()
            left["mails"] = [(message.subject, message.to, message.body) for message in mail.outbox]
            left["calls"] = [(row.task_name, row.args, row.kwargs) for row in MEMORY.waiting()]
        for name, lines in self._copies.contents():
            left[name] = lines
        return "\n".join(f"{name}: {pformat(what, width=100)}" for name, what in left.items())


def _plain(value: Any) -> Any:
    """Return a value with the rows of querysets instead of these."""
    if isinstance(value, QuerySet):
        return [*(value.values() if issubclass(value._iterable_class, ModelIterable) else value)]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _shown(point: Point) -> str:
    file, line = point.after
    return f"{file}:{line}\n    {linecache.getline(file, line).strip()}"


def _difference(clean: Report, again: Report) -> str:
    lines = difflib.ndiff(clean.left.splitlines(), again.left.splitlines())
    return "\n".join(line for line in lines if not line.startswith("?"))
