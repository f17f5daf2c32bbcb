"""The Herald: tells, by django.tasks' signals, which tasks have finished, once that is written.

In a thread of its own: what receivers do keeps neither the Foreman nor the workers.
"""

import queue
import threading
from collections.abc import Callable, Iterable
from functools import partial
from logging import ERROR
from typing import TYPE_CHECKING

from ..errors import TaskFailed
from ..log import say
from ..models import Status, Task
from ..queue.records import Outcome
from ..tasks.registry import find, find_task_of
from . import execute

if TYPE_CHECKING:
    from ..django_tasks.framework import AnyResult, BaseTaskBackend

#: How long the Foreman waits at its end for what is still to be told, in seconds.
PATIENCE = 5.0
ENDED = (Status.FAILED, Status.INTERRUPTED, Status.CANCELLED, Status.SUCCESSFUL)


class SignalDispatcher:
    """Does one thing after the other in a thread, which is made for the first."""

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def tell_ends(self, outcomes: Iterable[Outcome]) -> None:
        """Tell which claims of django.tasks backends have ended. To be called when that is committed."""
        for outcome in outcomes:
            if outcome.claim.extras and outcome.claim.origin:
                self._send(partial(tell_end, outcome))

    def tell_row(self, task_id: int) -> None:
        """Tell what a row says that a backend enqueued, if it has ended: after a crash, for one."""
        self._send(partial(_tell_row, task_id))

    def close(self) -> None:
        """Wait until all is told; not for ever."""
        if self._thread:
            self._errands.put(None)
            self._thread.join(PATIENCE)
            self._thread = None

    def _send(self, errand: Callable[[], None]) -> None:
        self._errands.put(errand)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="snappea-herald", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (errand := self._errands.get()) is not None:
            try:
                errand()
            except BaseException as error:  # a receiver that wants to exit
                say(ERROR, "Could not tell that a task has finished: %r", error)
            execute.tidy_connections()
        execute.close_connections()


def tell_end(outcome: Outcome) -> None:
    """Tell that a claim of a django.tasks backend has ended, here and now."""
    from ..django_tasks.function import DjangoTask
    from ..django_tasks.results import result_of_outcome

    claim = outcome.claim
    if outcome.retry_after is not None and (claim.expires_at is None or not _has_ended(claim.id)):
        return
    function = find_task_of(claim)
    if isinstance(function, DjangoTask):  # otherwise there is no Task to speak of
        failure = outcome.failure or TaskFailed(outcome.reason, outcome.error)
        _tell(function.sender, result_of_outcome(function.alias, outcome), failure if outcome.error else None)


def _has_ended(task_id: int) -> bool:
    return Task.objects.filter(pk=task_id, status__in=ENDED).exists()


def _tell_row(task_id: int) -> None:
    row = Task.objects.filter(pk=task_id, status__in=ENDED).exclude(backend=None).first()
    if row:
        from ..django_tasks.results import result_of_row

        find(row.task_name, may_import=True)
        result = result_of_row(row)
        sender = type(result.task.get_backend())
        has_failed = row.status != Status.SUCCESSFUL
        _tell(sender, result, TaskFailed(f"{row} is {row.status}.", row.error) if has_failed else None)


def _tell(sender: "type[BaseTaskBackend]", result: "AnyResult", failure: BaseException | None) -> None:
    """Send the signal; of a failure while that is being handled, as Django's logger looks there."""
    from ..django_tasks.framework import task_finished

    try:
        if failure:
            raise failure
    except BaseException:
        task_finished.send_robust(sender=sender, task_result=result)
    else:
        task_finished.send_robust(sender=sender, task_result=result)


dispatcher = SignalDispatcher()
