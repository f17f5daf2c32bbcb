"""The Supervisor: a worker's thread, while its task runs in a process of its own."""

import json
import math
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from logging import ERROR
from typing import Any

from ...conf import parse_size
from ...errors import Retry, TaskKilled
from ...log import say_seldom
from ...queue.records import Claim, Outcome
from ...tasks import context
from ...tasks.registry import TaskFunction
from .. import execute
from ..limits import TaskHandle
from .child import MUTE
from .fork_server import BORN, ENDED, INTERRUPT, KILL, MOST_BYTES, REFUSED, ForkServer

#: How long a task may take to end once TaskRevoked was raised in it, in seconds; then it is killed.
REVOKE_GRACE = 5.0
#: When a task is tried again for which there was no process to be had, in seconds.
TRY_AGAIN = 5.0
#: How often to see whether somebody asked for the end, in seconds.
LOOK_EVERY = 1.0
#: How long to wait for the death of a child whose ForkServer is gone, in seconds.
LAST_BREATH = 5.0
#: How long to hear nothing but the end after a word of progress, in seconds: a chatterbox must cost little.
REST = 0.02
_CHUNK = 65536


class _NoProcess(Exception):
    """There is none to be had; nothing ran."""


class Supervisor(TaskHandle):
    """Sees one task through in a process of its own. To the crew it is the desk where the task lies."""

    def __init__(
        self,
        claim: Claim,
        task: TaskFunction[..., Any],
        fork_server: ForkServer | None,
        note: Callable[[Outcome], None],
    ) -> None:
        """`note` is called as soon as the outcome is known; the process may take seconds more to end."""
        super().__init__()
        self._note = note
        self._claim = claim
        self._function = task
        self._fork_server = fork_server
        self._line: socket.socket | None = None  # under the lock, as the Foreman's thread uses it as well
        self._unread = b""
        self._told: list[Any] | None = None
        self._kill_at = self._revoked_at = math.inf
        self._is_born = False
        self._verdict = ""

    def interrupt(self, task: object) -> bool:
        """Raise TaskRevoked in the task, once, and tell whether it was this one. For other threads."""
        with self._lock:
            if task is not self._claim or self._revoked_at != math.inf:
                return False
            self._revoked_at = time.monotonic()
            self._ask(INTERRUPT)
            return True

    def is_starting(self, queue: str) -> bool:
        """Tell whether its task is of a queue and has no process yet. For other threads."""
        return self._claim.queue == queue and not self._is_born

    def run(self) -> Outcome:
        """Have the task run, and return what became of it, whatever that is."""
        began = time.monotonic()
        failure: Exception
        try:
            end = self._see_through(began)
            failure = TaskKilled(end)
            if self._function.options.retry_on_kill:
                failure = Retry(exc=failure)
        except _NoProcess as error:
            end = f"no process to be had for it: {error}"
            say_seldom(ERROR, "Tasks wait for a process of their own: %s", error)
            failure = Retry(exc=TaskKilled(end), countdown=TRY_AGAIN, max_retries=self._claim.attempts)
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
            failure = error
        duration = time.monotonic() - began
        if self._told is not None:
            return Outcome(self._claim, duration, *self._told)
        if self._revoked_at != math.inf:
            reason = f"TaskRevoked: {end}"
            return Outcome(self._claim, duration, reason, reason, is_revoked=True)
        return execute.after_death(self._function, self._claim, failure, duration)

    def _see_through(self, began: float) -> str:
        """Return how the process ended. Raises _NoProcess if there was none."""
        if self._fork_server is None:
            return "it was not run: a process of its own is to be had from `manage.py runsnappea` only"
        try:
            channel, line = self._fork_server.bear()
        except OSError as error:
            raise _NoProcess("the fork server is gone" if self._fork_server.is_gone() else error) from error
        with channel, line:
            with self._lock:
                self._line = line
                if self._revoked_at != math.inf:
                    self._ask(INTERRUPT)
            if (limit := self._function.options.time_limit) is not None:
                self._kill_at = began + limit
            try:
                return self._watch(channel, line)
            finally:
                with self._lock:
                    self._line = None

    def _order(self) -> bytes:
        order = {
            "claim": self._claim,
            "max_memory": parse_size(self._function.options.max_memory),
            "deadline": None if self._kill_at == math.inf else self._kill_at,
        }
        return json.dumps(order).encode() + b"\n"

    def _watch(self, channel: socket.socket, line: socket.socket) -> str:
        """Hand the order over, and hear what the child and the ForkServer say until it has ended."""
        channel.setblocking(False)
        order = memoryview(self._order())
        poll, rest = select.poll(), select.poll()
        for waiting in (poll, rest):
            waiting.register(line, select.POLLIN)
        poll.register(channel, select.POLLIN | select.POLLOUT)
        while True:
            ready = dict(poll.poll(self._patience()))
            events = ready.get(channel.fileno(), 0)
            if events & select.POLLOUT and not (order := order[_send(channel, order) :]):
                poll.modify(channel, select.POLLIN)
            if events & ~select.POLLOUT:
                if not self._listen(channel):
                    poll.unregister(channel)
                elif self._told is None:
                    rest.poll(REST * 1000)
            if line.fileno() in ready:
                words = line.recv(MOST_BYTES).decode(errors="replace")
                if words != BORN:
                    return self._hear_the_end(channel, words)
                self._is_born = True
            self._kill_if_due()

    def _patience(self) -> float:
        """Return how long to wait for a word, in milliseconds."""
        return max(0.0, math.ceil(min(LOOK_EVERY, self._kill_at - time.monotonic()) * 1000))

    def _kill_if_due(self) -> None:
        here = time.monotonic()
        if here >= self._kill_at:
            self._verdict = f"killed after {self._function.options.time_limit:g} s"
        elif here >= self._revoked_at + REVOKE_GRACE and not self._verdict:
            self._verdict = f"killed, as it had not ended {REVOKE_GRACE:g} s later"
        else:
            return
        self._kill_at = math.inf
        with self._lock:
            self._ask(KILL)

    def _ask(self, word: bytes) -> None:
        try:
            if self._line is not None:
                self._line.send(word, socket.MSG_DONTWAIT)
        except OSError:
            pass  # the ForkServer is gone, and its children with it

    def _listen(self, channel: socket.socket) -> bool:
        """Take what the child said. Tell whether it may say more."""
        try:
            said = channel.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *lines, self._unread = (self._unread + said).split(b"\n")
        for words in _understood(lines[-2:]):  # the outcome is the last word, and of progress the last counts
            if "progress" in words:
                with suppress(TypeError, ValueError):  # not by our own code: the task wrote it
                    done, total, note, *_ = words["progress"]
                    context.note(context.checked_progress(done, total, note, self._claim))
            else:
                self._told = words.get("outcome")
                if self._told is not None:
                    self._note(Outcome(self._claim, 0.0, *self._told))
        return bool(said)

    def _hear_the_end(self, channel: socket.socket, words: str) -> str:
        """Return how it ended, by the ForkServer's last words on it; none if that is gone."""
        if words.startswith(REFUSED):
            raise _NoProcess(words.removeprefix(REFUSED))
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        # without the ForkServer, the end of the channel tells of the child's
        patience = 0 if words else LAST_BREATH * 1000
        while poll.poll(patience) and self._listen(channel):
            pass
        if words.startswith(ENDED):
            exit_code = int(words.removeprefix(ENDED))
            return self._verdict if self._verdict and exit_code == -signal.SIGKILL else _end_of(exit_code)
        if self._is_born:
            return "its process died with the fork server"
        raise _NoProcess("the fork server has ended, or has no descriptors left")


def _send(channel: socket.socket, order: memoryview) -> int:
    """Send a part of the order, and return how much; all of it, if nobody wants it any more."""
    try:
        return channel.send(order)
    except BlockingIOError:
        return 0
    except OSError:
        return len(order)


def _understood(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            words = json.loads(line)
        except ValueError:  # somebody else's: the task wrote to a descriptor that it does not know
            continue
        if isinstance(words, dict):
            yield words


def _end_of(exit_code: int) -> str:
    """Return in words how a process ended."""
    if exit_code == MUTE:
        return (
            f"exited with code {MUTE}, as it could not tell the outcome any more: "
            "a task must not close descriptors that it did not open"
        )
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    if exit_code == -signal.SIGKILL:
        return "killed by SIGKILL (perhaps the machine was short of memory)"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"
