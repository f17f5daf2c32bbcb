"""The supervisor: a worker thread while its task runs in a child process."""

import json
import math
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from logging import ERROR
from typing import Any

from ...conf import parse_size
from ...errors import Retry, TaskKilled
from ...log import say_seldom
from ...queue.records import Claim, Outcome
from ...tasks import context, kept_log
from ...tasks.function import TaskFunction
from .. import execute
from .child import MUTE
from .fork_server import KILL, REVOKE, ForkServer

#: How long a task may take to end after TaskRevoked was raised in it, in seconds. Then it is killed.
REVOKE_GRACE = 5.0
#: When to retry a task if its process could not be started, in seconds.
TRY_AGAIN = 5.0
#: How long a process may take to start and to read its order, in seconds. Then it is killed.
ORDER_WITHIN = 60.0
#: How often to check whether the task was revoked, in seconds.
LOOK_EVERY = 1.0
#: How long to pause after progress and log messages, in seconds, so that frequent messages cost little.
REST = 0.01
_CHUNK = 65536
_PROGRESS, _LOG = b'{"progress"', b'{"log"'


class _NoProcess(Exception):
    """The process could not be started; nothing ran."""


class Supervisor:
    """Runs a task in a child process."""

    def __init__(
        self,
        claim: Claim,
        task: TaskFunction[..., Any],
        fork_server: ForkServer | None,
        note: Callable[[Outcome], None],
    ) -> None:
        """`note`: called as soon as the outcome is known. The process may end seconds later."""
        self._claim = claim
        self._task = task
        self._fork_server = fork_server
        self._note = note
        self._lock = threading.Lock()  # the Foreman's thread calls revoke()
        self._number: int | None = None  # of the child
        self._unread = b""
        self._outcome: list[Any] | None = None
        self._kill_at = self._revoked_at = math.inf
        self._has_started = False
        self._killed = ""  # why
        self._exit_code: int | None = None

    def revoke(self, claim: Claim) -> bool:
        """Raise TaskRevoked in the task, once, and return whether it runs here. Called by other threads."""
        with self._lock:
            if claim is not self._claim or self._revoked_at != math.inf:
                return False
            self._revoked_at = time.monotonic()
            self._signal(REVOKE, socket.MSG_DONTWAIT)
            return True

    def is_starting(self, queue: str) -> bool:
        """Return whether the task is of a queue and has no process yet. Called by other threads."""
        return self._claim.queue == queue and not self._has_started

    def run(self) -> Outcome:
        """Run the task, and return its outcome."""
        began = time.monotonic()
        failure: Exception
        try:
            end = self._run()
            failure = TaskKilled(end)
            if self._task.options.retry_on_kill:
                failure = Retry(exc=failure)
        except _NoProcess as error:
            end = f"no process could be started for it: {error}"
            say_seldom(ERROR, "Isolated tasks wait, because no process can be started for them: %s", error)
            failure = Retry(exc=TaskKilled(end), countdown=TRY_AGAIN, max_retries=self._claim.attempts)
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
            failure = error
        duration = time.monotonic() - began
        if self._outcome is not None:
            return Outcome(self._claim, duration, *self._outcome)
        if self._revoked_at != math.inf:
            reason = f"TaskRevoked: {end}"
            return Outcome(self._claim, duration, reason, reason, is_revoked=True)
        return execute.fail(self._claim, self._task, duration, failure)

    def _run(self) -> str:
        """Return a description of how the process ended. Raises _NoProcess if there was none."""
        if self._fork_server is None:
            return "it was not run: only `manage.py runsnappea` can start a process for it"
        try:
            number, channel = self._fork_server.spawn()
        except OSError as error:
            raise _NoProcess(error) from error
        with channel:
            with self._lock:
                self._number = number
                if self._revoked_at != math.inf:
                    self._signal(REVOKE)
            if (limit := self._task.options.time_limit) is not None:
                self._kill_at = time.monotonic() + limit
            try:
                self._converse(channel)
            except BaseException:
                self._signal(KILL)
                raise
        return self._end()

    def _signal(self, request: bytes, flags: int = 0) -> None:
        if self._fork_server and self._number is not None:
            self._fork_server.signal(request, self._number, flags)

    def _converse(self, channel: socket.socket) -> None:
        """Send the order, then read messages of the child and the fork server until the child has ended."""
        order = {
            "claim": self._claim,
            "max_memory": parse_size(self._task.options.max_memory),
            "deadline": None if self._kill_at == math.inf else self._kill_at,
        }
        channel.settimeout(ORDER_WITHIN)
        try:
            channel.sendall(json.dumps(order).encode() + b"\n")
        except TimeoutError:
            self._kill(f"killed, because it had not read its order after {ORDER_WITHIN:g} s")
        except OSError:
            pass  # the child has ended: the messages say why
        while self._exit_code is None:
            channel.settimeout(max(0.001, min(LOOK_EVERY, self._kill_at - time.monotonic())))
            try:
                if not (received := channel.recv(_CHUNK)):
                    return
                self._read(received)
            except TimeoutError:
                pass
            except OSError:
                return
            self._kill_if_due()

    def _kill_if_due(self) -> None:
        here = time.monotonic()
        if here >= self._kill_at:
            self._kill(f"killed after {self._task.options.time_limit:g} s")
        elif here >= self._revoked_at + REVOKE_GRACE and not self._killed:
            self._kill(f"killed, because it had not ended after {REVOKE_GRACE:g} s")

    def _kill(self, why: str) -> None:
        self._killed, self._kill_at = why, math.inf
        self._signal(KILL)

    def _read(self, received: bytes) -> None:
        *lines, self._unread = (self._unread + received).split(b"\n")
        progress = [line for line in lines if line.startswith(_PROGRESS)]
        for line in (*progress[-1:], *(line for line in lines if line and not line.startswith(_PROGRESS))):
            with suppress(TypeError, ValueError):  # the task itself wrote to the descriptor
                self._heed(**json.loads(line))
        is_frequent = progress or any(line.startswith(_LOG) for line in lines)
        if is_frequent and self._outcome is None and self._exit_code is None:
            time.sleep(REST)

    def _heed(
        self,
        started: bool = False,
        progress: Any = None,
        log: list[Any] | None = None,
        outcome: list[Any] | None = None,
        refused: str | None = None,
        ended: int | None = None,
    ) -> None:
        """Process a message of the child, or of the fork server (`started`, `refused`, `ended`)."""
        self._has_started = self._has_started or started
        if progress is not None:
            done, total, note, *_ = progress
            context.note(context.checked_progress(done, total, note, self._claim))
        elif log is not None:
            kept_log.keep_lines(self._claim, log)
        elif outcome is not None:
            told = Outcome(self._claim, 0.0, *outcome)
            self._outcome = outcome
            self._note(told)
        elif refused is not None:
            raise _NoProcess(refused)
        elif ended is not None:
            self._exit_code = int(ended)

    def _end(self) -> str:
        """Return a description of how the process ended. Raises _NoProcess if it never started."""
        code = self._exit_code
        if code is None and not self._has_started:
            raise _NoProcess("the fork server has ended or has no descriptors left")
        if code is None:
            return "its process died with the fork server"
        if code == -signal.SIGKILL:
            return self._killed or "killed by SIGKILL (perhaps the machine was short of memory)"
        if code == MUTE:
            return (
                f"exited with code {MUTE}, because it could not send the outcome: "
                "a task must not close descriptors that it did not open"
            )
        if code >= 0:
            return f"exited with code {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
