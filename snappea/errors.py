"""Every exception of Snappea's own.

SnappeaError
├── ConfigurationError      a setting is wrong (also an ImproperlyConfigured)
│   └── ExtraMissing        something needs a package that is not installed; names the extra
├── TaskDefinitionError     a @task cannot be what it is declared to be; raised at import
├── UnserializableArgument  an argument is not strict JSON (also a TypeError)
├── ArgumentsTooLarge       the arguments exceed MAX_ARGUMENT_BYTES (also a ValueError)
├── UnknownQueue            a task's queue is not in QUEUES (also a ValueError)
├── PauseUnconfirmed        a queue is paused, but a Foreman may still begin what it has claimed of it
├── QueueUnavailable        the queue cannot be used; names the cause and the cure (also an OperationalError)
│   └── EnqueueError        at delay(): nothing was written
├── UnknownTask             a row names what is no task; kept on the row
├── UnreadableArguments     a row's arguments cannot be read; kept on the row
├── UnfinishedResult        what a task returned is work that has not run (also a TypeError); kept on the row
├── ResultTooLarge          a result exceeds MAX_RESULT_BYTES (also a ValueError); kept on the row
├── OutcomeNotWritten       the database refused what became of a task; kept on the row
├── UnserializableResult    what a task returned is not strict JSON (also a TypeError); kept on the row
├── Retry                   raise it in a task to have it tried again
├── SoftTimeLimitExceeded   raised inside a task that has taken longer than its soft_time_limit
├── TaskKilled              a task's process was killed or died; kept on the row
├── TaskInterrupted         in the results of django.tasks: the Foreman died, or was stopped, while it ran
├── NoCurrentTask           current_task was asked where no task runs (also a RuntimeError)
├── TaskFailed              from get(): the task failed, was interrupted or cancelled
├── ResultNotKept           from get(): nothing is kept of the task (also a LookupError)
└── CannotStart             the Foreman refuses to start, and says why

TaskRevoked               raised inside a task that is to end now; a BaseException, so that
                          `except Exception` does not stop it

An error's message says what is wrong and what to do about it.
"""

import math
from datetime import datetime, timedelta

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from . import distribution


class SnappeaError(Exception):
    """What all of Snappea's own exceptions have in common."""


class ConfigurationError(SnappeaError, ImproperlyConfigured):
    """A setting is wrong. `manage.py check` reports the same, all at once."""


class ExtraMissing(ConfigurationError):
    """Something needs a package that is not installed. `extra`: which extra of Snappea brings it."""

    def __init__(self, what: str, extra: str) -> None:
        self.package = distribution.extra(extra)
        super().__init__(f"{what}, which is not installed. Run: pip install '{self.package}'")


class TaskDefinitionError(SnappeaError):
    """A function cannot be a task as declared: its name is taken, or it cannot be found by name."""


class UnserializableArgument(SnappeaError, TypeError):
    """An argument is not strict JSON; nothing was written."""


class ArgumentsTooLarge(SnappeaError, ValueError):
    """The arguments take more than SNAPPEA["MAX_ARGUMENT_BYTES"] bytes; nothing was written."""


class UnknownQueue(SnappeaError, ValueError):
    """A task's queue is not among SNAPPEA["QUEUES"]; nothing was written."""


class QueueUnavailable(SnappeaError, OperationalError):
    """The queue cannot be used: not migrated, not writable, full, locked, not configured.

    `what` is wrong, and the `cure`: two clauses, of which the message makes sentences.
    """

    def __init__(self, what: str, cure: str = "") -> None:
        self.what, self.cure = what.rstrip("."), cure
        end = "" if "run: " in cure else "."  # a command can be pasted as it stands
        said = f"{what}. {cure[:1].upper()}{cure[1:]}{end}" if cure else what
        super().__init__(f"{said[:1].upper()}{said[1:]}")


class EnqueueError(QueueUnavailable):
    """`delay()`: the queue's database, or Celery's broker, refused the task; nothing was written."""

    def __init__(self, message: str, what: str = "", cure: str = "") -> None:
        super().__init__(what, cure)
        self.args = (message,)


class PauseUnconfirmed(SnappeaError):
    """A queue is paused, but a Foreman has not confirmed that: it may still begin what it has claimed."""

    def __init__(self, queue: str, seconds: float) -> None:
        super().__init__(
            f"The queue {queue!r} is paused, but a Foreman has not confirmed it within {seconds:g} s: tasks "
            "that it has claimed may still begin. Look at its log, and pause the queue again."
        )


class UnknownTask(SnappeaError):
    """A row names something that is not a task in an installed app."""


class UnreadableArguments(SnappeaError):
    """A row's `args` is not a JSON list, or its `kwargs` is not a JSON object."""


class UnfinishedResult(SnappeaError, TypeError):
    """What a task returned has not run, or has not ended: a coroutine, a generator, a future."""


class ResultTooLarge(SnappeaError, ValueError):
    """What a task returned takes more than SNAPPEA["MAX_RESULT_BYTES"] bytes as JSON; the task fails."""


class OutcomeNotWritten(SnappeaError):
    """The database refused what became of a task, which has failed for that.

    Never raised inside a task: it stands on its row.
    """


class UnserializableResult(SnappeaError, TypeError):
    """What a task with `result_ttl` returned is not strict JSON."""


class Retry(SnappeaError):
    """Raised in a task, it has the task tried again.

    `exc`: why; kept on the row, and what the task has failed with once there are no retries left.
    `countdown` (seconds) or `eta` (an aware datetime): when; by the task's own options if neither is
    given. `max_retries`: instead of the task's own.

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
        self._check()

    def _check(self) -> None:
        """Raise TypeError or ValueError for what the Foreman could make nothing of."""
        for name, kinds in (("countdown", (int, float)), ("eta", (datetime,)), ("max_retries", (int,))):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
                raise TypeError(f"Retry: {name}={value!r} must be a {kinds[-1].__name__}.")
        if self.countdown is not None and math.isnan(self.countdown):
            raise ValueError("Retry: countdown must not be NaN.")
        if self.max_retries is not None and self.max_retries < 0:
            raise ValueError(f"Retry: max_retries={self.max_retries} must be at least 0.")
        if self.eta is not None and self.eta.tzinfo is None and settings.USE_TZ:
            raise ValueError(f"Retry: {self.eta!r} is naive, and could be any hour: pass an aware datetime.")


class SoftTimeLimitExceeded(SnappeaError):
    """Raised inside a task that has taken longer than its `soft_time_limit`. Clean up; it may even finish.

    It may stand in `autoretry_for`. A task that is blocked outside Python (a socket read, `time.sleep`)
    is only reached when that returns, unless it has a process of its own.
    """


class TaskKilled(SnappeaError):
    """The process of an isolated task was killed (at its `time_limit`, say), or died, without an outcome.

    Never raised inside a task: it is what the signals `task_failed` and `task_retried` carry.
    """


class TaskInterrupted(SnappeaError):
    """The Foreman died, or was stopped, while the task ran.

    Never raised inside a task: it stands in the results of django.tasks.
    """


class NoCurrentTask(SnappeaError, RuntimeError):
    """`current_task` was asked something where no task runs."""


class TaskFailed(SnappeaError):
    """What `AsyncResult.get()` raises for a task that did not succeed; `traceback` is the text on its row."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.args[0]}\n\n{self.traceback}" if self.traceback else str(self.args[0])


class ResultNotKept(SnappeaError, LookupError):
    """The task keeps no result (`result_ttl`), or its row is gone."""


class TaskRevoked(BaseException):
    """Raised inside a running task by `revoke(terminate=True)`. Clean up, and let it pass."""


class CannotStart(SnappeaError):
    """The Foreman cannot do its work here: another one runs, or the database is not ready."""
