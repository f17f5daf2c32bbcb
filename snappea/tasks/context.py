"""`snappea.current_task`: what a running task can ask about itself, and its progress."""

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, cast

from ..errors import NoCurrentTask, Retry
from ..queue.clock import as_datetime, later, now
from ..queue.records import FIELDS, Claim, Progress, about

_running: ContextVar[Claim | None] = ContextVar("snappea_current_task", default=None)
#: What this attempt keeps in memory, shared by its threads and asyncio tasks.
_own: ContextVar[dict[str, Any]] = ContextVar("snappea_own")
_deadline: ContextVar[float] = ContextVar("snappea_deadline", default=math.inf)
#: Those that begin() sets.
VARIABLES = (_running, _own, _deadline)
#: How often progress is written, in seconds.
PROGRESS_EVERY = 1.0
#: The length that a note is cut to, in characters.
MAX_NOTE = 1000
#: The latest progress of each task, by row, until the Foreman takes it.
unwritten_progress: dict[int, Progress] = {}


class CurrentTask:
    """The running task. Outside a task it is false, and its attributes raise NoCurrentTask.

    >>> from snappea import current_task
    >>> current_task.progress(3, 10, note="resizing")
    >>> raise current_task.retry(countdown=60)
    """

    def __bool__(self) -> bool:
        return _running.get() is not None

    @property
    def id(self) -> int:
        """The primary key of its row; 0 if it has none (TASK_ALWAYS_EAGER)."""
        return _claim().id

    @property
    def name(self) -> str:
        """The name of the task."""
        return _claim().task_name

    @property
    def attempt(self) -> int:
        """How often it was started: 1 for the first attempt."""
        return _claim().attempts

    @property
    def queue(self) -> str:
        """The queue it waited in."""
        return _claim().queue

    @property
    def enqueued_at(self) -> datetime:
        """When it was enqueued."""
        return as_datetime(_claim().enqueued_at)

    @property
    def parent_id(self) -> int | None:
        """The primary key of the task that enqueued it."""
        return cast("int | None", _claim().extras.parent_id)

    @property
    def batch_id(self) -> int | None:
        """The primary key of the batch that it is a member of."""
        return _claim().extras.batch_id

    @property
    def deadline(self) -> datetime | None:
        """When its time limit ends it; None if it has no limit."""
        _claim()
        seconds = _deadline.get() - time.monotonic()
        return None if seconds == math.inf else as_datetime(later(now(), seconds))

    def retry(
        self,
        exc: BaseException | None = None,
        countdown: float | timedelta | None = None,
        eta: datetime | None = None,
        max_retries: int | None = None,
    ) -> Retry:
        """Raise `snappea.errors.Retry`, so that the task is retried. The arguments are those of Retry."""
        _claim()
        raise Retry(exc=exc, countdown=countdown, eta=eta, max_retries=max_retries)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Report progress: `done` of `total`. Call it as often as you like: it is written once a second.

        `note` may be a lazy translation; its first 1,000 characters are kept. Raises TypeError or ValueError
        if `done` or `total` is not a finite number.
        """
        claim = _claim()
        checked = checked_progress(done, total, note, claim)
        if claim.id:
            _send(checked)


current_task = CurrentTask()


def checked_progress(done: Any, total: Any, note: object, claim: Claim) -> Progress:
    """Return progress with values that the database accepts. Raises TypeError or ValueError."""
    from ..log import storable  # a process that only enqueues does not need it

    if isinstance(note, (bytes, bytearray)):
        raise TypeError("progress(): note must be a string, not bytes: decode it.")
    text = storable(f"{note}"[:MAX_NOTE])
    total = None if total is None else _number("total", total)
    return Progress(_number("done", done), total, text, *claim.fence)


def _number(name: str, value: Any) -> float:
    if isinstance(value, (str, bytes, bytearray)) or not hasattr(value, "__float__"):
        raise TypeError(f"progress(): {name} must be a number, not {type(value).__name__}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"progress(): {name} must be a finite number of at most 300 digits.")
    return number


def _claim() -> Claim:
    claim = _running.get()
    if claim is None:
        raise NoCurrentTask("No task is running here: use current_task inside a task only.")
    return claim


def cause_of(failure: BaseException) -> BaseException:
    """Return the exception that a Retry wraps; any other exception as it is."""
    return failure.exc if isinstance(failure, Retry) and failure.exc else failure


def current_claim() -> Claim | None:
    """Return the running task's claim, if a task runs here."""
    return _running.get()


def own() -> dict[str, Any]:
    """Return what the running task's attempt keeps in memory."""
    return _own.get()


def parent_id() -> int | None:
    """Return the running task's id, if it has a row."""
    claim = _running.get()
    return claim.id or None if claim else None


def begin(claim: Claim, deadline: float = math.inf) -> None:
    """Make a claim the current task of this contextvars.Context. `deadline`: by time.monotonic()."""
    _running.set(claim)
    _own.set({})
    _deadline.set(deadline)


def note(progress: Progress) -> None:
    """Keep progress until the Foreman takes it."""
    unwritten_progress[progress.id] = progress


_send: Callable[[Progress], None] = note


def send_progress(send: Callable[[Progress], None]) -> None:
    """Pass progress to `send` from now on, in a process that is not the Foreman."""
    global _send
    _send = send


def take_progress(of: Iterable[int] | None = None) -> list[Progress]:
    """Return the new progress of these rows, or of all rows, once. For the Foreman."""
    rows = list(unwritten_progress) if of is None else of
    return [taken for row in rows if (taken := unwritten_progress.pop(row, None))]


class TaskFilter(logging.Filter):
    """Adds the `task_id`, `task_name`, `queue` and `attempt` of the running task to each log record.

    What the record has already stays; what is unknown, as `duration`, becomes "-". Snappea adds the filter to
    each handler when Django starts. Formatters can use `%(task_id)s` and the others.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass."""
        claim = _running.get()
        known = about(claim) if claim else {}
        for field in FIELDS:
            if field not in record.__dict__:
                setattr(record, field, known.get(field, "-"))
        return True


_filter = TaskFilter()


def all_handlers() -> list[logging.Handler]:
    """Return the handlers of all loggers, and the one for records that no handler gets."""
    loggers = logging.getLogger(), *logging.Logger.manager.loggerDict.values()
    found = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]  # placeholders
    return [*found, *filter(None, [logging.lastResort])]


def name_tasks_in_log() -> None:
    """Add the filter to all existing handlers, so that any formatter can use %(task_id)s."""
    for handler in all_handlers():
        handler.addFilter(_filter)
