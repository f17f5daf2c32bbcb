"""A @task as a task of Celery: what Celery's worker does with our message."""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from types import FrameType
from typing import Any, NoReturn

from billiard.pool import soft_timeout_sighandler
from celery import Task, current_task
from celery.exceptions import Ignore, Reject, WorkerShutdown, WorkerTerminate
from celery.exceptions import Retry as CeleryRetry

from ..errors import SoftTimeLimitExceeded, TaskFailed, TaskRevoked
from ..log import clean
from ..queue.clock import later, now
from ..queue.records import Claim, Outcome, Progress
from ..tasks import context
from ..tasks.discovery import resolve
from ..tasks.function import TaskFunction
from ..workers import execute
from ..workers.cleanup import tidy_connections
from ..workers.limits import Ending, Handle
from . import handover
from .handover import Ticket, Unreachable
from .messages import HEADER, arguments_of, claim_of, header_of, message_of

#: Shown instead of the arguments of a sensitive task.
HIDDEN = "(not shown: the task is sensitive)"
#: For how many seconds a worker puts back a message that it cannot take.
PUT_BACK = 5.0
#: Exceptions that a task raises for Celery itself.
CELERYS_OWN = (CeleryRetry, Ignore, Reject, WorkerShutdown, WorkerTerminate)

logger = getLogger("snappea.celery")
_last_progress: dict[int, float] = {}


class SnappeaTask(Task):  # type: ignore[misc]  # Celery has no types
    """Celery's task for a @task. Snappea handles retries, hooks, signals and checks of arguments."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send a message: for our engine, for a retry, or for code that uses Celery's task, such as beat."""
        task = resolve(self.name)
        headers = options.get("headers") or {}
        if HEADER not in headers:
            call = task.call(tuple(args or ()), dict(kwargs or {}), options.pop("queue", None))
            args, kwargs = arguments_of(call)
            more = message_of(call, now(), self.app)
            options = {**more, **options, "headers": {**headers, **more["headers"]}}
        if task.options.sensitive:
            options["argsrepr"] = options["kwargsrepr"] = HIDDEN
        return super().apply_async(args, kwargs, **options)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task once, as a worker of the Foreman would."""
        task = resolve(self.name)  # first: a call of an unknown task must not be taken
        request, header = self.request, header_of(self.request)
        ticket = Ticket(*header["ticket"]) if "ticket" in header and not request.is_eager else None
        if ticket and request.retries == ticket.retries:
            self._take(ticket, args, kwargs)
        try:
            return self._execute(task, claim_of(self, task.options, args, kwargs))
        finally:
            if ticket and self.acks_late:
                _finish(ticket)
            if not request.called_directly and not request.is_eager:
                tidy_connections()

    def _execute(self, task: TaskFunction[..., Any], claim: Claim) -> Any:
        context.send_progress(_send_progress)
        with _ended_by_signals(CeleryHandle(self.request)) as handle:
            outcome = execute.execute(claim, handle, task)
            if outcome.failure is not None:
                self._fail(outcome, outcome.failure)
            return None if outcome.result is None else json.loads(outcome.result)

    def _fail(self, outcome: Outcome, cause: BaseException) -> NoReturn:
        """Raise what makes Celery retry the task, or let it fail."""
        extras, wait = outcome.claim.extras, outcome.retry_after
        if extras.is_sensitive or not isinstance(cause, Exception):
            cause = TaskFailed(outcome.reason)
        if wait is not None and (extras.expires_at is None or later(now(), wait) < extras.expires_at):
            # the outcome has decided that a retry is left, perhaps by the Retry's own max_retries
            raise self.retry(exc=cause, countdown=wait, max_retries=self.request.retries + 1)
        if extras.is_sensitive:
            raise cause from None
        raise cause

    def _take(self, ticket: Ticket, args: Any, kwargs: Any) -> None:
        """Take a handed-over call. Raises Ignore if it must not run here or not now."""
        name, extra = clean(self.name), {"task_id": ticket.key, "task_name": self.name}
        try:
            if handover.take(ticket, self.acks_late):
                return
            logger.warning("%s[%s] was delivered twice. It runs only once.", name, ticket.key, extra=extra)
        except Unreachable as error:
            logger.warning("%s[%s] is put back: %s.", name, ticket.key, error, extra=extra)
            request = self.request
            again = {"countdown": PUT_BACK, "retries": request.retries}
            self.signature_from_request(request, args, kwargs, **again).apply_async()
        raise Ignore


def _finish(ticket: Ticket) -> None:
    try:
        handover.finish(ticket)
    except Unreachable as error:
        said = "%s has ended, but its row in snappea_handover could not be deleted: %s."
        logger.warning(said, ticket.key, error, extra={"task_id": ticket.key})


# limits and termination


class CeleryHandle(Handle):
    """A task in Celery's worker. In the prefork pool signals can end it; in other pools nothing can."""

    def __init__(self, request: Any) -> None:
        hard, soft = request.timelimit or (None, None)
        self.soft_limit: float = soft or math.inf
        self.deadline = time.monotonic() + min(hard or math.inf, self.soft_limit)
        self.revoked_by: int | None = None

    def put_down(self) -> Ending | None:
        """Return TaskRevoked if the task was revoked."""
        return None if self.revoked_by is None else TaskRevoked

    def is_failure(self, raised: BaseException) -> bool:
        """Return False for Celery's own exceptions, and for the exit of the pool's process at a signal."""
        code = raised.code if isinstance(raised, SystemExit) else None
        ends_process = isinstance(code, int) and -256 < code < -256 + signal.NSIG
        return not (ends_process or isinstance(raised, CELERYS_OWN))


@contextmanager
def _ended_by_signals(handle: CeleryHandle) -> Iterator[CeleryHandle]:
    """Raise our exceptions in the task when the prefork pool sends its process a signal.

    After a revoked task the process exits, as Celery expects.
    """
    if not _is_in_prefork_pool():
        yield handle
        return
    terminate = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: FrameType | None) -> NoReturn:
        handle.revoked_by = number
        raise TaskRevoked

    def end_at_limit(number: int, frame: FrameType | None) -> NoReturn:
        raise SoftTimeLimitExceeded(f"it took more than {handle.soft_limit:g} s")

    signal.signal(signal.SIGUSR1, end_at_limit)
    signal.signal(signal.SIGTERM, end)
    try:
        yield handle
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
        if handle.revoked_by and callable(terminate):
            terminate(handle.revoked_by, None)


def _is_in_prefork_pool() -> bool:
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGUSR1) is soft_timeout_sighandler
    )


def _send_progress(progress: Progress) -> None:
    """Write progress to the result backend once a second, if the task keeps a result."""
    task, here = current_task, time.monotonic()
    if not task or task.request.id != progress.id or not header_of(task.request).get("result_ttl"):
        return
    if here - _last_progress.get(progress.id, -math.inf) < context.PROGRESS_EVERY:
        return
    _last_progress.clear()
    _last_progress[progress.id] = here
    meta = {"done": progress.done, "total": progress.total, "note": progress.note}
    task.update_state(state="PROGRESS", meta=meta)
