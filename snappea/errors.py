"""All of Snappea's exceptions.

SnappeaError
├── ConfigurationError      a setting is wrong (also an ImproperlyConfigured)
│   └── ExtraMissing        a package is not installed; names the extra that installs it
├── TaskDefinitionError     at import: a @task is not valid
├── UnserializableArgument  an argument is not strict JSON (also a TypeError)
├── ArgumentsTooLarge       the arguments exceed MAX_ARGUMENT_BYTES (also a ValueError)
├── UnknownQueue            a task's queue is not in QUEUES (also a ValueError)
├── AlreadyEnqueued         an identical call was enqueued, and the task has on_conflict="raise"
├── PauseUnconfirmed        a queue is paused, but a Foreman may still start tasks that it has claimed
├── QueueUnavailable        the queue cannot be used; names the cause and the cure (also an OperationalError)
│   └── EnqueueError        from delay(): the message says if anything may be written
├── UnknownTask             a row names no task; kept on the row
├── UnreadableArguments     a row's arguments are invalid; kept on the row
├── UnfinishedResult        a task returned work that has not run (also a TypeError); kept on the row
├── ResultTooLarge          a result exceeds MAX_RESULT_BYTES (also a ValueError); kept on the row
├── OutcomeNotWritten       the database refused the outcome of a task; kept on the row
├── UnserializableResult    a result is not strict JSON (also a TypeError); kept on the row
├── Retry                   raise it in a task to retry the task
├── MaxRetriesExceededError from retry() of a task with bind=True: no retries are left
├── SoftTimeLimitExceeded   raised inside a task that exceeds its soft_time_limit
├── TaskKilled              a task's process was killed or died; kept on the row
├── TaskInterrupted         in the results of django.tasks: the Foreman died or stopped while the task ran
├── ClaimLost               from step(): the task no longer belongs to this attempt
├── NoCurrentTask           current_task was used outside a task (also a RuntimeError)
├── TaskFailed              from get(): the task failed, was interrupted or cancelled
├── ResultNotKept           from get(): the task keeps no result, or its row is gone (also a LookupError)
└── CannotStart             the Foreman cannot start; says why

TaskRevoked               raised inside a task that must end now; a BaseException, so that
                          `except Exception` does not catch it

Each message says what is wrong and how to fix it.
"""

import inspect
import math
import os
import sys
from asyncio import _get_running_loop
from datetime import datetime, timedelta

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import OperationalError

if not hasattr(sys.modules[__package__], "__version__"):  # another project's files have replaced ours
    from .distribution import conflict

    if found := conflict():
        raise ImportError(" ".join(found))


class SnappeaError(Exception):
    """The base class of Snappea's exceptions."""


class ConfigurationError(SnappeaError, ImproperlyConfigured):
    """A setting is wrong. `manage.py check` reports all wrong settings at once."""


class ExtraMissing(ConfigurationError):
    """A package is not installed. `package`: what to install, such as `django-snappea[postgres]`."""

    def __init__(self, what: str, extra: str) -> None:
        self.package = f"django-snappea[{extra}]"
        super().__init__(f"{what}, which is not installed. Run: pip install '{self.package}'")


class TaskDefinitionError(SnappeaError):
    """A function cannot be a task: its name is taken, it cannot be found by name, or an option is invalid."""


class UnserializableArgument(SnappeaError, TypeError):
    """An argument is not strict JSON; nothing was written."""


class ArgumentsTooLarge(SnappeaError, ValueError):
    """The arguments take more than SNAPPEA["MAX_ARGUMENT_BYTES"] bytes; nothing was written."""


class UnknownQueue(SnappeaError, ValueError):
    """A task's queue is not among SNAPPEA["QUEUES"]; nothing was written."""


class QueueUnavailable(SnappeaError, OperationalError):
    """The queue cannot be used: not migrated, not writable, full, locked, not configured.

    `what` says what is wrong, and `cure` what to do. The message has both.
    """

    def __init__(self, what: str, cure: str = "") -> None:
        self.what, self.cure = what.rstrip("."), cure
        end = "" if "run: " in cure else "."  # so that a command can be pasted
        message = f"{what}. {cure[:1].upper()}{cure[1:]}{end}" if cure else what
        super().__init__(f"{message[:1].upper()}{message[1:]}")


class EnqueueError(QueueUnavailable):
    """From `delay()`: the queue's database, or Celery's broker, refused the task.

    Nothing was written, unless the message says "It may be enqueued anyway": the disk or the connection
    failed after the commit. `what` says what is wrong, and `cure` what to do.
    """

    def __init__(self, message: str, what: str = "", cure: str = "") -> None:
        super().__init__(what, cure)
        self.args = (message,)


class AlreadyEnqueued(SnappeaError):
    """From `delay()` of a task with `on_conflict="raise"`: an identical call exists, nothing was written.

    `id`: the primary key of that call.
    """

    def __init__(self, task_name: str, id: int) -> None:
        self.id = id
        super().__init__(f"{task_name} was not enqueued: task #{id} is an identical call.")


class PauseUnconfirmed(SnappeaError):
    """A queue is paused, but a Foreman has not confirmed it and may still start tasks that it has claimed."""

    def __init__(self, queue: str, seconds: float) -> None:
        super().__init__(
            f"The queue {queue!r} is paused, but a Foreman has not confirmed it within {seconds:g} s: tasks "
            "that it has claimed may still start. Check its log, and pause the queue again."
        )


class UnknownTask(SnappeaError):
    """A row names no task of an installed app."""


class UnreadableArguments(SnappeaError):
    """A row's `args` is not a JSON list, or its `kwargs` is not a JSON object."""


class UnfinishedResult(SnappeaError, TypeError):
    """A task returned work that has not run or ended: a coroutine, a generator, a future."""


class ResultTooLarge(SnappeaError, ValueError):
    """A result takes more than SNAPPEA["MAX_RESULT_BYTES"] bytes as JSON; the task fails."""


class OutcomeNotWritten(SnappeaError):
    """The database refused the outcome of a task, so the task failed. Kept on the row, never raised."""


class UnserializableResult(SnappeaError, TypeError):
    """The result of a task with `result_ttl` is not strict JSON."""


class Retry(SnappeaError):
    """Raise it in a task to retry the task.

    `exc`: the reason, which is kept on the row, and is the task's error if no retries are left. `countdown`
    (seconds or a timedelta) or `eta` (an aware datetime): when to retry, instead of the task's own delay.
    `max_retries`: overrides the task's own. Raises TypeError or ValueError for an invalid argument.

    >>> raise Retry(countdown=30)
    """

    def __init__(
        self,
        message: str = "",
        *,
        exc: BaseException | None = None,
        countdown: float | timedelta | None = None,
        eta: datetime | None = None,
        max_retries: int | None = None,
    ) -> None:
        super().__init__(message or (f"{type(exc).__name__}: {exc}" if exc else "tried again"))
        self.exc = self.__cause__ = exc
        self.countdown = countdown.total_seconds() if isinstance(countdown, timedelta) else countdown
        self.eta = eta
        self.max_retries = max_retries
        self._validate()

    def _validate(self) -> None:
        for name, kinds in (("countdown", (int, float)), ("eta", (datetime,)), ("max_retries", (int,))):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
                raise TypeError(f"Retry: {name}={value!r} must be a {kinds[-1].__name__}.")
        if self.countdown is not None and math.isnan(self.countdown):
            raise ValueError("Retry: countdown must not be NaN.")
        if self.max_retries is not None and self.max_retries < 0:
            raise ValueError(f"Retry: max_retries={self.max_retries} must be at least 0.")
        if self.eta is not None and self.eta.tzinfo is None and settings.USE_TZ:
            raise ValueError(f"Retry: {self.eta!r} is naive: pass an aware datetime.")


class MaxRetriesExceededError(SnappeaError):
    """From `self.retry()` of a task with `bind=True`, without `exc`: it has no retries left."""


class SoftTimeLimitExceeded(SnappeaError):
    """Raised inside a task that exceeds its `soft_time_limit`. Catch it to clean up, or even to finish.

    It may be listed in `autoretry_for`. A task that is blocked outside Python (a socket read, `time.sleep`)
    receives it when that call returns, or at once if the task runs in its own process.
    """


class TaskKilled(SnappeaError):
    """The process of an isolated task was killed, for example at its `time_limit`, or died.

    Never raised; the signals `task_failed` and `task_retried` pass it.
    """


class TaskInterrupted(SnappeaError):
    """The Foreman died or stopped while the task ran. Only in the results of django.tasks, never raised."""


class ClaimLost(SnappeaError):
    """From `step()`: the task no longer belongs to this attempt; nothing was written.

    Another Foreman has taken it, after the one that runs this attempt was cut off from the database.
    """

    def __init__(self, id: int) -> None:
        super().__init__(
            f"Task #{id} no longer belongs to this attempt: another Foreman took it. Let the attempt end."
        )


class NoCurrentTask(SnappeaError, RuntimeError):
    """`current_task` was used outside a task."""


class TaskFailed(SnappeaError):
    """From `AsyncResult.get()`: the task did not succeed. `traceback`: the text on its row."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.args[0]}\n\n{self.traceback}" if self.traceback else str(self.args[0])


class ResultNotKept(SnappeaError, LookupError):
    """The task keeps no result (`result_ttl`), or its row is gone."""


class TaskRevoked(BaseException):
    """Raised inside a running task by `revoke(terminate=True)`. Clean up, and do not suppress it.

    It is a BaseException, so that `except Exception` does not catch it.
    """


class CannotStart(SnappeaError):
    """The Foreman cannot start: another one runs, or the database is not ready."""


#: caller() skips the frames of these modules.
_OURS = ("snappea.", "django.tasks.", "django_tasks.")
#: Methods with an asynchronous counterpart.
_ASYNCHRONOUS = {"delay": "adelay", "enqueue": "aenqueue", "step": "astep"}

#: The event loop of this thread, or None; `asyncio.get_running_loop()` raises, which is slower.
running_loop = _get_running_loop


def refuse_event_loop(owner: str = "", name: str = "") -> None:
    """Raise SynchronousOnlyOperation on an event loop, which the call would block.

    `owner`: the object in the caller's code, for the cure. `name`: of the task. The environment variable
    DJANGO_ALLOW_ASYNC_UNSAFE allows the call, as in Django.
    """
    if running_loop() is None or os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        return
    method, file, line = caller()
    written = f"{owner}.{method}" if owner else method
    cure = f"sync_to_async({written})(...)"
    if method in _ASYNCHRONOUS:
        cure = f"{owner}.{_ASYNCHRONOUS[method]}(...)"
    elif method == "status":  # a property
        cure = f"sync_to_async(lambda: {written})()"
    what = f"{name}: {method}()" if name else f"{written}()"
    raise SynchronousOnlyOperation(
        f"{what} was called on an event loop, at {file}:{line}, and would block it. Write: await {cure}"
    )


def caller() -> tuple[str, str, int]:
    """Return our function that was called from outside, and the caller's file and line."""
    frame, method = inspect.currentframe(), ""
    while frame and frame.f_globals.get("__name__", "").startswith(_OURS):
        method, frame = frame.f_code.co_name, frame.f_back
    return (method, frame.f_code.co_filename, frame.f_lineno) if frame else (method, "", 0)
