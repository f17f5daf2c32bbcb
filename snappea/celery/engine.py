"""Celery as the engine: each @task is a task of Celery, and each call is a message."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from celery import _state, current_app
from celery import exceptions as theirs

from ..conf import current
from ..errors import (
    ConfigurationError,
    EnqueueError,
    ResultNotKept,
    SnappeaError,
    TaskFailed,
    UnserializableArgument,
)
from ..models import Status, Task
from ..monitoring import ping  # noqa: F401  (each worker must know the task of `manage.py snappea check`)
from ..queue.clock import now
from ..queue.records import Call
from ..schedules.plans import plans
from ..tasks.context import current_claim
from ..tasks.engine import Caller, Engine, register
from ..tasks.function import TaskFunction, declared, observers, registry
from . import beat
from .handover import Item, Ticket, Unreachable, revoke
from .messages import DEFAULT_QUEUE, arguments_of, message_of, task_options
from .task import SnappeaTask

R = TypeVar("R")
#: Our status for each of Celery's states. Any other state was set by a running task.
_STATES = {
    "PENDING": Status.READY,
    "RECEIVED": Status.READY,
    "STARTED": Status.RUNNING,
    "PROGRESS": Status.RUNNING,
    "RETRY": Status.SCHEDULED,
    "SUCCESS": Status.SUCCESSFUL,
    "FAILURE": Status.FAILED,
    "REVOKED": Status.CANCELLED,
}
_ENDED = (Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED)
_app: Any = None


class CallId(str):
    """Celery's id of a call that this process sent. `keeps`: whether its result is kept."""

    keeps = True


# the project's app


def activate() -> None:
    """Make Celery the engine, and register all tasks with its apps."""
    for task in declared():
        declare(task)
    observers.append(declare)
    _state.connect_on_app_finalize(complete)
    for app in _finalized_apps():
        complete(app)
    register("celery", CeleryEngine())


def project_app() -> Any:
    """Return the project's Celery app. Raises ConfigurationError if there is none."""
    global _app
    if _app is None:
        app = current_app._get_current_object()
        if app.main == "default" and not app.set_as_current:  # Celery's fallback app
            raise ConfigurationError(
                'SNAPPEA["ENGINE"] is "celery", but the project has no Celery app. Create one in celery.py '
                'next to settings.py: app = Celery("proj"), and import it in __init__.py there: '
                "from .celery import app as celery_app."
            )
        _app = app
    return _app


def declare(task: TaskFunction[..., Any]) -> None:
    """Register a task with each Celery app, under its name and aliases."""

    def add_to(app: Any) -> None:
        for name in (task.name, *task.options.aliases):
            if name not in app._tasks:
                attributes = {"name": name, "__doc__": task.__doc__, **task_options(task.options)}
                app.register_task(type(task.__name__, (SnappeaTask,), attributes)())

    _state.connect_on_app_finalize(add_to)
    for app in _finalized_apps():
        add_to(app)
        complete(app)


def _finalized_apps() -> list[Any]:
    return [app for app in _state._get_active_apps() if app.finalized]


def complete(app: Any) -> None:
    """Add the queues and schedules that are known by now to an app."""
    if app.main == "default":
        return
    if not app.conf.task_queues:  # otherwise the project has set them
        names = {*(current().QUEUES or ()), *(task.options.queue for task in registry.values())}
        names |= {plan.queue for plan in plans() if plan.queue}
        for queue in names - {DEFAULT_QUEUE} - app.amqp.queues.keys():
            app.amqp.queues.select_add(queue)
    app.conf.beat_schedule = {**dict(beat.entries()), **app.conf.beat_schedule}


class CeleryEngine(Engine):
    """Sends each call as a message, and asks Celery's result backend for its outcome."""

    def enqueue(self, call: Call, moment: str | None = None) -> tuple[Any, bool]:
        """Send a call. Raises EnqueueError if the broker refuses it."""
        return _send(call, moment), True

    def enqueue_many(self, calls: Sequence[Call]) -> list[tuple[Any, bool]]:
        """Send many calls in order. If the broker refuses one, those before it are sent."""
        if not calls:
            return []
        with project_app().producer_or_acquire() as producer:
            return [(_send(call, producer=producer), True) for call in calls]

    def broadcast(self, call: Call, caller: Caller[R]) -> NoReturn:
        """Raise NotImplementedError: each message goes to one worker."""
        raise NotImplementedError(f"{call.task_name}.broadcast() has no equivalent in Celery.")

    def find(self, call_id: Any) -> Task | None:
        """Return what Celery knows of a call as an unsaved Task; None if that is nothing."""
        if not getattr(call_id, "keeps", True):
            return None
        result = project_app().AsyncResult(call_id)
        try:
            state, value = result.state, result.result
        except (NotImplementedError, AttributeError):  # there is no result backend
            return None
        status = _STATES.get(state, Status.RUNNING)
        found = Task(task_name=result.name or "", status=status.value, error=result.traceback or "")
        if status == Status.SUCCESSFUL:
            found.result = Task._meta.get_field("result").get_prep_value(value)
        if status in _ENDED:
            found.finished_at = result.date_done
        if state == "PROGRESS" and isinstance(value, dict):
            found.progress_done, found.progress_total = value.get("done"), value.get("total")
            found.progress_note = value.get("note") or ""
        return found

    def wait(self, call_id: Any, timeout: float | None) -> Any:
        """Wait for a call to end and return its result. Raises as `AsyncResult.get()` does."""
        if not getattr(call_id, "keeps", True):
            raise ResultNotKept(f"{call_id} keeps no result. Declare its task with @task(result_ttl=3600).")
        result = project_app().AsyncResult(call_id)
        is_in_task = current_claim() is not None
        try:
            value = result.get(timeout=timeout, propagate=False, disable_sync_subtasks=is_in_task)
        except theirs.TimeoutError:
            raise TimeoutError(f"Task {call_id} has not ended within {timeout:g} s.") from None
        except (NotImplementedError, AttributeError):
            raise ResultNotKept("Celery keeps no results: set its result_backend.") from None
        if result.state == "SUCCESS":
            return value
        status = _STATES.get(result.state, Status.FAILED)
        raise TaskFailed(f"Task {call_id} is {status.value}.", result.traceback or repr(value))

    def cancel(self, call_id: Any, terminate: bool) -> bool:
        """Tell Celery's workers not to run a call, or to end it if `terminate`.

        Returns False if Celery knows that it has ended.
        """
        known = self.find(call_id)
        with suppress(Unreachable):  # most calls are not in the queue's database
            revoke(call_id)
        project_app().control.revoke(call_id, terminate=terminate)
        return known is None or known.status not in _ENDED


def _send(call: Call, moment: str | None = None, producer: Any = None) -> CallId:
    extras = call.extras
    if extras and extras.backend is not None:
        raise ConfigurationError(
            f"{call.task_name} is a task of django.tasks, which Celery does not run: set another backend in "
            'TASKS, or remove SNAPPEA["ENGINE"].'
        )
    sent = CallId(_publish(call, moment or now(), producer=producer).id)
    sent.keeps = extras is not None and extras.keeps_result and extras.result_ttl is not None
    return sent


def send_handed_over(item: Item, ticket: Ticket) -> None:
    """Send a call from the queue's table. Raises as `enqueue()` does."""
    _publish(item.call, item.enqueued_at, ticket, task_id=ticket.key, retries=item.retries)


def _publish(call: Call, enqueued_at: str, ticket: Ticket | None = None, **how: Any) -> Any:
    app = project_app()
    if '"__type__"' in call.args or '"__type__"' in call.kwargs:
        raise UnserializableArgument(
            f'{call.task_name}(): the key "__type__" of a dict has a special meaning in Celery\'s JSON: use '
            "another key."
        )
    try:
        options = message_of(call, enqueued_at, app, ticket) | how
        return app.tasks[call.task_name].apply_async(*arguments_of(call), **options)
    except (SnappeaError, TypeError, ValueError):
        raise
    except Exception as error:  # each broker and result backend has its own errors
        message = f"{call.task_name} was not enqueued: Celery's broker refused it: {error}."
        raise EnqueueError(message) from error
