"""The process of one isolated task: it reads an order, runs the task, and sends the outcome."""

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
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from ...errors import SoftTimeLimitExceeded, TaskRevoked
from ...queue.records import Claim, Outcome
from ...tasks import context, kept_log
from ...tasks.discovery import find_task_of
from ...tasks.function import TaskFunction
from .. import execute
from ..cleanup import close_connections, tidy_connections
from ..event_loop import Slot, execute_alone
from ..limits import LOOK_AGAIN, Ending, Handle, is_caught

#: Raises TaskRevoked in the task. Not SIGTERM, which a service manager sends to all processes of a service.
REVOKED = signal.SIGUSR1
#: The exit code of a child that cannot send the outcome, because its task closed the channel.
MUTE = 74
#: How long Sentry and OpenTelemetry may take to send their queued data, in seconds.
FLUSH = 2.0
#: If memory runs out, the system kills the child rather than the Foreman.
OOM_SCORE = b"500"
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_prctl: Any = getattr(ctypes.CDLL(None), "prctl", None)  # Linux only
_LONGEST = 1e8  # longer timers fail


def name_process(name: str) -> None:
    """Name this process for ps and top, with at most 15 characters."""
    if _prctl:
        _prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


class Channel:
    """The child's end of the socket to its supervisor. A message is a line of JSON."""

    def __init__(self, end: socket.socket, lock: int | None) -> None:
        """Take the socket, and the descriptor of the Foreman's lock, if the child holds one."""
        self._socket = end
        self._turns = threading.Lock()
        self._identities = {fd: os.fstat(fd) for fd in (end.fileno(), lock) if fd is not None}

    def order(self) -> dict[str, Any]:
        """Wait for the order, the only line that the supervisor sends, and return it."""
        with self._socket.makefile("rb") as lines:
            order: dict[str, Any] = json.loads(lines.readline())
            return order

    def tell(self, **words: object) -> None:
        """Send a line. Ends the process if the task closed the descriptor, which may be another file now."""
        with self._turns:
            self._send(words)

    def tell_log(self) -> None:
        """Send what the task has logged; with the next record if a message is being sent already."""
        while kept_log.unwritten_logs and self._turns.acquire(blocking=False):
            try:
                with suppress(OSError):  # the Foreman has died, and this process is about to
                    self._send({"log": kept_log.take_log(next(iter(kept_log.unwritten_logs)))})
            finally:
                self._turns.release()

    def _send(self, words: object) -> None:
        if not self._is_own(self._socket.fileno()):
            os._exit(MUTE)
        self._socket.sendall(json.dumps(words).encode() + b"\n")

    def _is_own(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._identities[descriptor])
        except OSError:
            return False

    def close(self) -> None:
        """Close the descriptors that are still Snappea's: in a process that a task forks."""
        for descriptor in self._identities:
            if self._is_own(descriptor):
                os.close(descriptor)


class ChildHandle(Handle):
    """The handle of an isolated task. Signals end it, even while it sleeps.

    Signal handlers run in the task's thread, so no lock is needed.
    """

    is_worker = True

    def __init__(self, max_memory: int | None, deadline: float) -> None:
        """`max_memory`: in bytes. `deadline`: when the task is killed, by time.monotonic()."""
        self.deadline = deadline
        self._max_memory = max_memory
        self._memory_before = resource.getrlimit(resource.RLIMIT_AS)
        #: The exception that is to end the task once it has begun, and the one that was raised in it.
        self.wanted: Ending | None = None
        self._ending: Ending | None = None
        self._is_running = self._is_shielded = False
        signal.signal(REVOKED, self._heed)
        signal.signal(signal.SIGALRM, self._heed)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {REVOKED})

    def take(self, task: object) -> None:
        """Start the task. Raises TaskRevoked if it was revoked before, or MemoryError."""
        self._is_running = True
        self._raise_wanted()
        self.bound_memory()

    def bound_memory(self) -> None:
        """Apply the task's memory limit. Raises MemoryError if the process already exceeds it."""
        if self._max_memory is not None:
            _require_below(self._max_memory)
            _soft, hard = self._memory_before
            most = self._max_memory if hard == resource.RLIM_INFINITY else min(self._max_memory, hard)
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))

    def limit(self, seconds: float) -> float:
        """Raise SoftTimeLimitExceeded in the task after so many seconds. Return the deadline."""
        signal.setitimer(signal.ITIMER_REAL, min(seconds, _LONGEST))
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        return self.deadline

    def put_down(self) -> Ending | None:
        """Finish the task. Return the exception that was raised in it. May raise one, at most twice."""
        self._is_running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._max_memory is not None:  # the outcome needs memory, too
            resource.setrlimit(resource.RLIMIT_AS, self._memory_before)
        return self._ending

    def shield(self, send: Callable[[], None]) -> None:
        """Send a message while the task runs: the whole line, even if a signal arrives meanwhile."""
        if threading.current_thread() is not threading.main_thread():
            send()
            return
        before, self._is_shielded = self._is_shielded, True
        try:
            send()
        finally:
            self._is_shielded = before
        self._raise_wanted()

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if number == REVOKED:
            self.wanted = TaskRevoked
        elif self.wanted is None:
            self.wanted = SoftTimeLimitExceeded
        if is_caught(frame):
            signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN)
        else:
            self._raise_wanted()

    def _raise_wanted(self) -> None:
        """Raise the exception that is to end the task: only in the task, and each only once."""
        wanted = self.wanted
        if wanted is None or wanted is self._ending or self._is_shielded or not self._is_running:
            return
        self._ending = wanted
        raise wanted


def _require_below(limit: int) -> None:
    """Raise MemoryError, with the reason, if the process exceeds its limit already."""
    try:
        with open("/proc/self/statm", "rb") as sizes:
            size = int(sizes.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    if size >= limit:
        raise MemoryError(
            f"max_memory={limit}: the process uses {size} bytes of address space before the task begins"
        )


def main(end: socket.socket, lock: int | None, fork_server: int) -> NoReturn:
    """Read the order from a socket, run its task, send the outcome, and end the process.

    `lock`: the descriptor of the Foreman's lock. `fork_server`: the pid of the parent.
    """
    exit_code = 1
    try:
        _stand_alone(fork_server)
        channel = Channel(end, lock)
        os.register_at_fork(after_in_child=lambda: _become_ordinary(channel))
        _run(channel)
        exit_code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        for flush in (logging.shutdown, _flush_background, sys.stdout.flush, sys.stderr.flush):
            try:
                flush()
            except Exception:  # closed by the task, or the disk is full: nowhere to report it
                pass
        os._exit(exit_code)


def _flush_background() -> None:
    """Send what Sentry and OpenTelemetry have queued: os._exit() does not wait for their threads."""
    if sentry := sys.modules.get("sentry_sdk"):
        sentry.flush(timeout=FLUSH)
    for kind, module in (("tracer", "trace"), ("meter", "metrics"), ("logger", "_logs")):
        if telemetry := sys.modules.get(f"opentelemetry.{module}"):
            provider = getattr(telemetry, f"get_{kind}_provider")()
            if flush := getattr(provider, "force_flush", None):  # missing without the SDK
                flush(int(FLUSH * 1000))


def _run(channel: Channel) -> None:
    order = channel.order()
    deadline = order["deadline"]
    handle = ChildHandle(order["max_memory"], math.inf if deadline is None else deadline)
    context.send_progress(lambda progress: handle.shield(lambda: channel.tell(progress=progress)))
    kept_log.keeper.send = lambda: handle.shield(channel.tell_log)
    claim = Claim(*order["claim"])
    task = find_task_of(claim)
    if task and task.is_coroutine:
        outcome = _run_coroutine(claim, handle, task)
    else:
        outcome = execute.execute(claim, handle, task)
    _claim, _duration, *rest = outcome._replace(failure=None)  # JSON cannot carry an exception
    tidy_connections()
    close_connections()
    channel.tell_log()
    channel.tell(outcome=rest)


def _run_coroutine(claim: Claim, handle: ChildHandle, task: TaskFunction[..., Any]) -> Outcome:
    """Run an asynchronous task on an event loop, where it is ended as on the Foreman's."""
    slot, deadline = Slot(claim), handle.deadline
    try:
        handle.bound_memory()
        if handle.wanted:
            slot.raise_in_task(handle.wanted)
        return execute_alone(slot, task, REVOKED, deadline)
    except MemoryError as error:
        return execute.fail(claim, task, 0.0, error)
    finally:
        signal.signal(REVOKED, signal.SIG_IGN)
        handle.put_down()


def _stand_alone(fork_server: int) -> None:
    """Make this process the leader of its own session and group, which ends with the fork server."""
    os.setsid()
    if _prctl:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != fork_server:
        os._exit(1)  # the fork server had ended before
    name_process("snappea-task")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # the Foreman blocks them while it restarts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2})
    # the Foreman decides when to stop; programs that the task starts would inherit SIG_IGN
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(OOM_SCORE)
    except OSError:
        pass  # not Linux, or the score is higher already


def _become_ordinary(channel: Channel) -> None:
    channel.close()
    for number in (REVOKED, signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
