"""A task's own process, from its birth in the ForkServer to its end: one order, one task, one outcome."""

import ctypes
import json
import logging
import math
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Any, NoReturn

from ...errors import SoftTimeLimitExceeded, TaskRevoked
from ...queue.records import Claim, Outcome, Progress
from ...tasks import context
from ...tasks.registry import TaskFunction, find_task_of
from .. import execute
from ..event_loop import Slot, run_alone
from ..limits import Ending, TaskHandle

#: Has TaskRevoked raised. Not SIGTERM: at a service's stop that is sent to every process of it at once.
INTERRUPT = signal.SIGUSR1
#: The exit code of a child whose task closed its channel, so that it cannot tell the outcome.
MUTE = 74
#: How long Sentry and OpenTelemetry may take to send what a task has left, in seconds.
FLUSH = 2.0
#: If the machine runs out of memory, the child is to go rather than the Foreman.
OOM_SCORE = b"500"
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_prctl: Any = getattr(ctypes.CDLL(None), "prctl", None)  # Linux has it
_LONGEST = 1e8  # seconds that a timer can be set to, and then some


def name_process(name: str) -> None:
    """Give this process a name of at most 15 characters, for ps and top."""
    if _prctl:
        _prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


class Channel:
    """The child's end of the socket to its guardian; a line of JSON is a message."""

    def __init__(self, end: socket.socket, lock: int | None) -> None:
        """Take the socket, and the descriptor by which the child holds the Foreman's lock."""
        self._socket = end
        self._turns = threading.Lock()
        self._identities = {fd: os.fstat(fd) for fd in (end.fileno(), lock) if fd is not None}

    def order(self) -> dict[str, Any]:
        """Wait for the only line that the guardian sends, and return what is in it."""
        with self._socket.makefile("rb") as lines:
            order: dict[str, Any] = json.loads(lines.readline())
            return order

    def say(self, **words: object) -> None:
        """Send a line. Ends the process if the task has closed the descriptor, which may be another's now."""
        line = json.dumps(words).encode() + b"\n"
        with self._turns:
            if not self._is_own(self._socket.fileno()):
                os._exit(MUTE)
            self._socket.sendall(line)

    def _is_own(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._identities[descriptor])
        except OSError:
            return False

    def close(self) -> None:
        """Close what is still this process's own: for what a task forks."""
        for descriptor in self._identities:
            if self._is_own(descriptor):
                os.close(descriptor)


class ChildTaskHandle(TaskHandle):
    """The desk of a child: its task is interrupted by signals, which even end a sleep.

    Their handlers run between two steps of the same thread, so there is nothing to lock.
    """

    def __init__(self, max_memory: int | None, deadline: float) -> None:
        """Take how much memory the task may have, in bytes, and when it is killed, by time.monotonic()."""
        super().__init__()
        self.deadline = deadline
        self._max_memory = max_memory
        self._memory_before = resource.getrlimit(resource.RLIMIT_AS)
        #: By what the task is to be ended, as soon as it has begun.
        self.wanted: Ending | None = None
        self._is_shielded = False
        signal.signal(INTERRUPT, self._heed)
        signal.signal(signal.SIGALRM, self._heed)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {INTERRUPT})

    def take(self, task: object) -> None:
        """Begin with a task. Raises TaskRevoked if that came before, MemoryError if it is too large."""
        super().take(task)
        self._raise_wanted()
        self.bound_memory()

    def bound_memory(self) -> None:
        """Let the process have as much memory as the task may have. Raises MemoryError if it has more."""
        if self._max_memory is not None:
            _require_below(self._max_memory)
            _soft, hard = self._memory_before
            most = self._max_memory if hard == resource.RLIM_INFINITY else min(self._max_memory, hard)
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))

    def limit(self, seconds: float) -> float:
        """Have the task interrupted after so many seconds; return when it has to end, by time.monotonic()."""
        signal.setitimer(signal.ITIMER_REAL, min(seconds, _LONGEST))
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        return self.deadline

    def put_down(self) -> Ending | None:
        """End with the task, and tell how it was interrupted. May raise that, at most twice."""
        self._task = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._max_memory is not None:  # so that there is some to tell of the lack of it
            resource.setrlimit(resource.RLIMIT_AS, self._memory_before)
        return self._ending

    def say_progress(self, channel: Channel, progress: Progress) -> None:
        """Send how far the task is: the whole line, whatever comes in the meantime."""
        if threading.current_thread() is not threading.main_thread():
            channel.say(progress=progress)
            return
        self._is_shielded = True
        try:
            channel.say(progress=progress)
        finally:
            self._is_shielded = False
        self._raise_wanted()

    def _heed(self, number: int, _frame: FrameType | None) -> None:
        if number == INTERRUPT:
            self.wanted = TaskRevoked
        elif self.wanted is None:
            self.wanted = SoftTimeLimitExceeded
        self._raise_wanted()

    def _raise_wanted(self) -> None:
        """Raise what was asked for: in the task only, and each once."""
        wanted = self.wanted
        if wanted is None or wanted is self._ending or self._is_shielded or self._task is None:
            return
        self._ending = wanted
        raise wanted


def _require_below(limit: int) -> None:
    """Raise MemoryError, with the reason, if the process is larger than its limit before the task begins."""
    try:
        with open("/proc/self/statm", "rb") as sizes:
            size = int(sizes.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    if size >= limit:
        raise MemoryError(
            f"max_memory={limit}: the process has {size} bytes of addresses before the task begins"
        )


def live(end: socket.socket, lock: int | None, fork_server: int) -> NoReturn:
    """Run the task that comes over a socket, send what became of it, and end the process.

    `lock`: the descriptor of the Foreman's lock, `fork_server`: the pid of the parent.
    """
    exit_code = 1
    try:
        _stand_alone(fork_server)
        channel = Channel(end, lock)
        os.register_at_fork(after_in_child=lambda: _leave_to_parent(channel))
        _work(channel)
        exit_code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        for flush in (logging.shutdown, _flush_background, sys.stdout.flush, sys.stderr.flush):
            try:
                flush()
            except Exception:  # closed by the task, or full: there is nobody left to tell
                pass
        os._exit(exit_code)


def _flush_background() -> None:
    """Send what is sent in the background: of the end of this process nobody else is told."""
    if sentry := sys.modules.get("sentry_sdk"):
        sentry.flush(timeout=FLUSH)
    if tracing := sys.modules.get("opentelemetry.trace"):
        flush = getattr(tracing.get_tracer_provider(), "force_flush", None)  # without the SDK there is none
        if flush:
            flush(int(FLUSH * 1000))


def _work(channel: Channel) -> None:
    order = channel.order()
    handle = ChildTaskHandle(
        order["max_memory"], math.inf if order["deadline"] is None else order["deadline"]
    )
    context.send_progress(lambda progress: handle.say_progress(channel, progress))
    claim = Claim(*order["claim"])
    task = find_task_of(claim)
    outcome = (
        _run_coroutine(claim, handle, task) if task and task.is_coroutine else execute.run(claim, handle)
    )
    _claim, _duration, *rest = outcome._replace(failure=None)  # which no line could carry
    execute.tidy_connections()
    execute.close_connections()
    channel.say(outcome=rest)


def _run_coroutine(claim: Claim, handle: ChildTaskHandle, task: TaskFunction[..., Any]) -> Outcome:
    """Run an asynchronous task on a loop of its own, where it is ended as it would be in the Foreman."""
    slot, deadline = Slot(claim), handle.deadline
    try:
        handle.bound_memory()
        if handle.wanted:
            slot.end(handle.wanted)
        return run_alone(slot, INTERRUPT, deadline)
    except MemoryError as error:
        return execute.outcome_of_failure(claim, task, 0.0, error, False, None)
    finally:
        signal.signal(INTERRUPT, signal.SIG_IGN)
        handle.put_down()


def _stand_alone(fork_server: int) -> None:
    """Be a session and a group of one, that ends with the ForkServer."""
    os.setsid()
    if _prctl:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != fork_server:
        os._exit(1)  # it had ended before
    name_process("snappea-task")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # blocked where the Foreman has started anew
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(signal.SIGTERM, _ignore)  # the Foreman decides; and what it executes does not ignore it
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(OOM_SCORE)
    except OSError:
        pass  # no Linux, or it stands higher already


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


def _leave_to_parent(channel: Channel) -> None:
    """Let what a task forked be a process like any other."""
    channel.close()
    for number in (INTERRUPT, signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
