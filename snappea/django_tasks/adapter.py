"""Finds the tasks of django.tasks for the core, and sends the signal `task_finished`.

This module implements `snappea.tasks.Framework`. A thread sends the signals after the outcome is committed,
so that slow receivers delay neither the Foreman nor its workers.
"""

import queue
import threading
from collections.abc import Callable
from functools import partial
from logging import ERROR

from ..errors import TaskFailed, UnknownTask
from ..log import say
from ..models import Status, Task
from ..queue.records import Claim, Origin, Outcome
from ..tasks import discovery
from ..workers.cleanup import close_connections, tidy_connections
from .backend import SnappeaBackend
from .framework import AnyResult, BaseTaskBackend, InvalidTask, task_backends, task_finished
from .function import DjangoTask
from .restore import declared, is_sealed, restored
from .results import result_of_outcome, result_of_row

#: How long the Foreman waits for the receivers when it stops, in seconds.
PATIENCE = 5.0
ENDED = (Status.FAILED, Status.INTERRUPTED, Status.CANCELLED, Status.SUCCESSFUL)
_calls: "queue.SimpleQueue[Callable[[], None] | None]" = queue.SimpleQueue()
_thread: threading.Thread | None = None


# names


def find(name: str) -> DjangoTask | None:
    """Return the task of a name, if a loaded module declares it for a Snappea backend."""
    task = declared(name)
    backend = task_backends[task.backend] if task else None
    return backend.function_of(task) if task and isinstance(backend, SnappeaBackend) else None


def _load(name: str, overrides: str | None) -> None:
    """Import the module of a row's task, unless the task is known."""
    if declared(name) is None:
        discovery.import_module_of(name, is_sealed(name, overrides))


def find_claimed(claim: Claim, origin: Origin) -> DjangoTask:
    """Return the task of a claim, as it was enqueued. Raises UnknownTask."""
    name = claim.task_name
    discovery.wait_for_import(name.rpartition(".")[0])
    _load(name, origin.overrides)
    backend = task_backends[origin.backend] if origin.backend in task_backends.settings else None
    if not isinstance(backend, SnappeaBackend):
        raise UnknownTask(f"Unknown task {name!r}: TASKS no longer has a Snappea backend {origin.backend!r}.")
    task = restored(name, origin.backend, claim.queue, -claim.order, origin.overrides)
    if task is None:
        raise UnknownTask(f"Unknown task {name!r}: there is no django.tasks Task of that name.")
    try:
        return backend.function_of(task)
    except InvalidTask as error:
        raise UnknownTask(f"Unknown task {name!r}: {error}") from None


# signals


def notify_settled(outcome: Outcome, is_urgent: bool = False) -> None:
    """Send the signal for a task that has ended, from the signal thread or from this one if `is_urgent`."""
    _send_for_outcome(outcome) if is_urgent else _call(partial(_send_for_outcome, outcome))


def notify_row(task_id: int) -> None:
    """Send the signal for a row that a backend enqueued, if it has ended."""
    _call(partial(_send_for_row, task_id))


def close() -> None:
    """Wait until all signals are sent, at most PATIENCE."""
    global _thread
    if _thread:
        _calls.put(None)
        _thread.join(PATIENCE)
        _thread = None


def _call(function: Callable[[], None]) -> None:
    global _thread
    _calls.put(function)
    if _thread is None:
        _thread = threading.Thread(target=_work, name="snappea-signals", daemon=True)
        _thread.start()


def _work() -> None:
    while (function := _calls.get()) is not None:
        try:
            function()
        except BaseException as error:  # for example sys.exit() in a receiver
            say(ERROR, "The signal task_finished could not be sent: %r", error)
        tidy_connections()
    close_connections()


def _send_for_outcome(outcome: Outcome) -> None:
    claim = outcome.claim
    if outcome.retry_after is not None and (claim.extras.expires_at is None or not _ended(claim.id)):
        return
    function = discovery.find_task_of(claim)
    if isinstance(function, DjangoTask):  # otherwise there is no Task for a result
        failure = outcome.failure or TaskFailed(outcome.reason, outcome.error)
        _send(function.sender, result_of_outcome(function.alias, outcome), failure if outcome.error else None)


def _send_for_row(task_id: int) -> None:
    row = _ended(task_id)
    if row and row.backend:
        _load(row.task_name, row.overrides)
        result = result_of_row(row)
        has_failed = row.status != Status.SUCCESSFUL
        failure = TaskFailed(f"{row} is {row.status}.", row.error) if has_failed else None
        _send(type(result.task.get_backend()), result, failure)


def _ended(task_id: int) -> Task | None:
    return Task.objects.filter(pk=task_id, status__in=ENDED).first()


def _send(sender: type[BaseTaskBackend], result: AnyResult, failure: BaseException | None) -> None:
    """Send the signal while the failure is being handled: Django's logger reads sys.exc_info()."""
    send = partial(task_finished.send_robust, sender=sender, task_result=result)
    try:
        if failure:
            raise failure
    except BaseException:
        send()
    else:
        send()
