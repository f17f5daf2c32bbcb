"""A task as one of Celery's: what Celery's worker does with a message of ours."""

import functools
import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from logging import WARNING, getLogger
from types import FrameType
from typing import Any, NoReturn, cast

from billiard.pool import soft_timeout_sighandler
from celery import Task, current_task
from celery.exceptions import Ignore, Reject, WorkerShutdown, WorkerTerminate
from celery.exceptions import Retry as CeleryRetry

from ..errors import SoftTimeLimitExceeded, TaskFailed, TaskRevoked
from ..log import clean
from ..queue.clock import as_datetime, later, now
from ..queue.records import Call, Claim, Extras, Outcome, Progress
from ..tasks import context
from ..tasks.function import TaskFunction
from ..tasks.registry import find, resolve
from ..workers import execute
from ..workers.limits import Ending, NoLimits
from . import handover
from .handover import Ticket, Unreachable
from .messages import DEFAULT_QUEUE, priority_of

#: Under which header a message has what only we know.
HEADER = "snappea"
#: What of it is shown instead of the arguments of a sensitive task.
HIDDEN = "(not shown: the task is sensitive)"
#: How long a message that this worker cannot take is put back for, in seconds.
PUT_BACK = 5.0
#: What a task may raise that is Celery's own affair.
CELERYS_OWN = (CeleryRetry, Ignore, Reject, WorkerShutdown, WorkerTerminate)

logger = getLogger("snappea.celery")
_progress_said: dict[int, float] = {}


class SnappeaTask(Task):  # type: ignore[misc]  # Celery has no types
    """What each @task is to Celery. Retries, hooks, signals and checks of arguments are Snappea's."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send a message: by our engine, for a retry, or by who knows Celery's task only, as beat does."""
        task = resolve(self.name)
        headers = options.get("headers") or {}
        if HEADER not in headers:
            call = task.call(tuple(args or ()), dict(kwargs or {}), options.pop("queue", None))
            args, kwargs = arguments_of(call)
            more = message_of(call, now(), driver_of(self.app))
            options = {**more, **options, "headers": {**headers, **more["headers"]}}
        if task.options.sensitive:
            options["argsrepr"] = options["kwargsrepr"] = HIDDEN
        return super().apply_async(args, kwargs, **options)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task once, as one of our own workers would."""
        request, task = self.request, resolve(self.name)
        told = _told(request)
        ticket = Ticket(*told["ticket"]) if "ticket" in told and not request.is_eager else None
        if ticket and request.retries == ticket.retries:
            self._take(ticket, args, kwargs)
        try:
            return self._run(task, _claim_of(self, told, args, kwargs))
        finally:
            if ticket and self.acks_late:
                _finish(ticket)
            if not request.called_directly and not request.is_eager:
                execute.tidy_connections()

    def _run(self, task: TaskFunction[..., Any], claim: Claim) -> Any:
        context.send_progress(_say_progress)
        with _ended_by_signals(CeleryHandle(self.request)) as handle:
            outcome = execute.execute(claim, handle, task)
            if outcome.failure:
                self._fail(outcome, outcome.failure)
            return None if outcome.result is None else json.loads(outcome.result)

    def _fail(self, outcome: Outcome, cause: BaseException) -> NoReturn:
        """Have the task tried again, or let it fail. Raises what tells Celery so."""
        claim, wait = outcome.claim, outcome.retry_after
        if claim.is_sensitive or not isinstance(cause, Exception):
            cause = TaskFailed(outcome.reason)
        if wait is not None and (claim.expires_at is None or later(now(), wait) < claim.expires_at):
            # whether there is a retry left was decided, perhaps by the Retry's own max_retries
            raise self.retry(exc=cause, countdown=wait, max_retries=self.request.retries + 1)
        if claim.is_sensitive:
            raise cause from None
        raise cause

    def _take(self, ticket: Ticket, args: Any, kwargs: Any) -> None:
        """Take a call that was handed over. Raises Ignore if it is not to be run here, or not now."""
        name = clean(self.name)
        try:
            if handover.take(ticket, self.acks_late):
                return
            logger.warning("%s[%s] was handed over twice; it is run once only.", name, ticket.key)
        except Unreachable as error:
            logger.log(WARNING, "%s[%s] is put back: %s.", name, ticket.key, error)
            request = self.request
            self.signature_from_request(
                request, args, kwargs, countdown=PUT_BACK, retries=request.retries
            ).apply_async()
        raise Ignore


def _finish(ticket: Ticket) -> None:
    try:
        handover.finish(ticket)
    except Unreachable as error:
        logger.warning("%s has ended, but stays among what is handed over: %s.", ticket.key, error)


# what a message says


def arguments_of(call: Call) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call as they are sent."""
    return json.loads(call.args), json.loads(call.kwargs)


def message_of(call: Call, enqueued_at: str, driver: str, ticket: Ticket | None = None) -> dict[str, Any]:
    """Return the options with which Celery sends a call. `driver`: of the broker, as in "redis"."""
    extras, task = call.extras or Extras(), find(call.task_name)
    told: dict[str, Any] = {"enqueued_at": enqueued_at, "result_ttl": extras.result_ttl}
    told |= {"parent_id": extras.parent_id, "expires_at": extras.expires_at}
    if ticket:
        told["ticket"] = list(ticket)
    options: dict[str, Any] = {
        "headers": {HEADER: told},
        "priority": priority_of(call.priority, driver),
        "ignore_result": extras.result_ttl is None,
    }
    if call.queue != DEFAULT_QUEUE:
        options["queue"] = call.queue
    if extras.run_after:
        options["eta"] = as_datetime(extras.run_after).astimezone(UTC)
    if extras.expires_at:
        options["expires"] = as_datetime(extras.expires_at).astimezone(UTC)
    if task:
        options["soft_time_limit"] = task.soft_time_limit(call.queue)
    return options


@functools.cache
def driver_of(app: Any) -> str:
    """Return what Celery's broker is, as in "redis"."""
    return str(app.connection_for_write().transport.driver_type)


def _told(request: Any) -> Mapping[str, Any]:
    """Return what we said in a message's header; nothing if it is not by us."""
    headers = request.headers or {}
    return cast(Mapping[str, Any], headers.get(HEADER) or {})


def _claim_of(celerys: SnappeaTask, told: Mapping[str, Any], args: Any, kwargs: Any) -> Claim:
    """Return what one of our own workers would get."""
    request, options = celerys.request, resolve(celerys.name).options
    queue = (request.delivery_info or {}).get("routing_key") or DEFAULT_QUEUE
    if queue == celerys.app.conf.task_default_queue:
        queue = DEFAULT_QUEUE
    ttl = told["result_ttl"] if told else options.result_ttl
    # Celery itself takes what is tried again for its own parent
    parent = told["parent_id"] if told else request.parent_id
    more = [ttl, None, None, 0, parent, told.get("expires_at"), None, options.sensitive, None]
    return Claim(
        0,
        request.id,
        0,
        celerys.name,
        json.dumps(args),
        json.dumps(kwargs),
        queue,
        request.retries + 1,
        told.get("enqueued_at") or now(),
        extras=json.dumps(more),
    )


# time limits, and the end of a task before its own


class CeleryHandle(NoLimits):
    """A task in one of Celery's workers. In the prefork pool signals end it; elsewhere nothing can."""

    def __init__(self, request: Any) -> None:
        hard, soft = request.timelimit or (None, None)
        self.soft_limit: float = soft or math.inf
        self.deadline = time.monotonic() + min(hard or math.inf, self.soft_limit)
        self.revoked_by: int | None = None

    def put_down(self) -> Ending | None:
        """Return the exception that ended the task, if it was revoked."""
        return None if self.revoked_by is None else TaskRevoked

    def is_failure(self, raised: BaseException) -> bool:
        """Tell whether it is neither Celery's own, nor what ends the pool's process at a signal."""
        code = raised.code if isinstance(raised, SystemExit) else None
        ends_process = isinstance(code, int) and -256 < code < -256 + signal.NSIG
        return not (ends_process or isinstance(raised, CELERYS_OWN))


@contextmanager
def _ended_by_signals(handle: CeleryHandle) -> Iterator[CeleryHandle]:
    """Raise our exceptions in the task where the prefork pool sends its process a signal.

    Once the task is revoked the process ends after it, as Celery expects.
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


def _say_progress(progress: Progress) -> None:
    """Let the result backend know, if there is one that keeps something of the task, once a second."""
    task, here = current_task, time.monotonic()
    if not task or task.request.id != progress.id or not _told(task.request).get("result_ttl"):
        return
    if here - _progress_said.get(progress.id, -math.inf) < context.PROGRESS_EVERY:
        return
    _progress_said.clear()
    _progress_said[progress.id] = here
    meta = {"done": progress.done, "total": progress.total, "note": progress.note}
    task.update_state(state="PROGRESS", meta=meta)
