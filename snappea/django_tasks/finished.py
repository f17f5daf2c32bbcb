"""Sends django.tasks' signal `task_finished` once what became of a task is committed.

The Foreman has the signals sent by a thread of their own: slow receivers delay neither it nor the workers.
"""

import queue
import threading
from collections.abc import Callable
from functools import partial
from logging import ERROR

from ..errors import TaskFailed
from ..log import say
from ..models import Status, Task
from ..queue.records import Outcome
from ..tasks.discovery import find, find_task_of
from ..workers.cleanup import close_connections, tidy_connections
from .framework import AnyResult, BaseTaskBackend, task_finished
from .function import DjangoTask
from .results import result_of_outcome, result_of_row

#: How long the Foreman waits for the last receivers when it stops, in seconds.
PATIENCE = 5.0
ENDED = (Status.FAILED, Status.INTERRUPTED, Status.CANCELLED, Status.SUCCESSFUL)


class SignalThread:
    """Calls one function after the other in a thread, which it starts for the first."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], None]) -> None:
        """Have a function called."""
        self._calls.put(function)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="snappea-signals", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait until all is done, for PATIENCE at most."""
        if self._thread:
            self._calls.put(None)
            self._thread.join(PATIENCE)
            self._thread = None

    def _work(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                function()
            except BaseException as error:  # a receiver that wants to exit
                say(ERROR, "Could not tell that a task has finished: %r", error)
            tidy_connections()
        close_connections()


signal_thread = SignalThread()


def send_for_outcome(outcome: Outcome) -> None:
    """Send the signal for a claim that has ended, unless it is retried."""
    claim = outcome.claim
    if outcome.retry_after is not None and (claim.extras.expires_at is None or not _ended(claim.id)):
        return
    function = find_task_of(claim)
    if isinstance(function, DjangoTask):  # otherwise there is no Task to make a result of
        failure = outcome.failure or TaskFailed(outcome.reason, outcome.error)
        _send(function.sender, result_of_outcome(function.alias, outcome), failure if outcome.error else None)


def send_for_row(task_id: int) -> None:
    """Send the signal for a row that a backend enqueued, if it has ended."""
    row = _ended(task_id)
    if row and row.backend:
        find(row.task_name, may_import=True)
        result = result_of_row(row)
        has_failed = row.status != Status.SUCCESSFUL
        failure = TaskFailed(f"{row} is {row.status}.", row.error) if has_failed else None
        _send(type(result.task.get_backend()), result, failure)


def _ended(task_id: int) -> Task | None:
    return Task.objects.filter(pk=task_id, status__in=ENDED).first()


def _send(sender: type[BaseTaskBackend], result: AnyResult, failure: BaseException | None) -> None:
    """Send the signal; while the failure is being handled, because Django's logger looks there."""
    send = partial(task_finished.send_robust, sender=sender, task_result=result)
    try:
        if failure:
            raise failure
    except BaseException:
        send()
    else:
        send()
