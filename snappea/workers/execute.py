"""Run a claimed task: a pipeline from a Claim to an Outcome.

Worker threads, the event loop, child processes, eager mode, `testing.drain()`, Celery's worker and
django.tasks all take a task through these steps:

    begin      decode the arguments, make it the current task, send task_started
    (call)     the task function itself, inside HOOK_RUN_TASK_CONTEXT
    succeed    encode the result if it is kept, send task_succeeded
    fail       or decide on a retry, send task_failed or task_retried, format the error, log it

A task is either called (`execute`) or awaited (`event_loop.execute_on_loop`). Both return an Outcome, which
the Foreman writes to the queue.
"""

import contextvars
import math
import os
import time
import traceback
from logging import DEBUG, ERROR
from typing import Any

from ..conf import current
from ..errors import SoftTimeLimitExceeded, TaskKilled, TaskRevoked
from ..log import ENDINGS, clean, foreman, say, say_failure, shortened, storable
from ..queue.files import at_fork
from ..queue.logbook import Note
from ..queue.records import Claim, Outcome, about
from ..signals import task_failed, task_retried, task_started, task_succeeded, tell
from ..tasks import context, kept_log
from ..tasks.arguments import decode, encode_result
from ..tasks.discovery import task_of
from ..tasks.function import TaskFunction, is_sensitive
from .cleanup import close_caches
from .limits import Handle

#: The longest error that is kept, in characters.
MAX_ERROR = 20_000
#: The longest error that a log line shows, in characters.
MAX_REASON = 300
#: Shown instead of the message of an exception if the task is sensitive.
HIDDEN = "(not shown: the task is sensitive)"

_forks = 0  # how often this process was forked; cheaper to compare than os.getpid()


def _count_fork() -> None:
    global _forks
    _forks += 1


at_fork(after_in_child=_count_fork)


def execute(claim: Claim, handle: Handle, task: TaskFunction[..., Any] | None = None) -> Outcome:
    """Call a claimed task in this thread and return its outcome. `task`: the claim's, if known."""
    if handle.is_worker and foreman.isEnabledFor(DEBUG):
        log_start(claim)
    forks = _forks
    failure: BaseException | None = None
    result: str | None = None
    limit: float | None = None
    inside = contextvars.Context()  # a language or time zone that the task activates ends with it
    began = time.monotonic()
    try:
        handle.take(claim)
        task = task or task_of(claim)
        limit = task.soft_time_limit(claim.queue)
        deadline = handle.deadline if limit is None else handle.limit(limit)
        result = inside.run(call, task, claim, deadline)[1]
    except BaseException as raised:
        failure = raised
    try:
        try:
            if forks != _forks:
                os._exit(1 if failure else 0)  # a child forked by the task does not own the claim
            ending = handle.put_down()
        except ENDINGS:  # raised too late for the task; another may follow
            ending = handle.put_down()
    except ENDINGS:
        ending = handle.put_down()
    duration = time.monotonic() - began
    close_caches(inside)
    if failure is None:
        return Outcome(claim, duration, result=result)
    if not handle.is_failure(failure):
        raise failure
    return fail(claim, task, duration, failure, limit, ending is TaskRevoked, handle.is_worker)


def log_start(claim: Claim) -> None:
    """Log that a task starts."""
    say(DEBUG, "Starting %s #%d", clean(claim.task_name), claim.id, extra=about(claim))


def call(task: TaskFunction[..., Any], claim: Claim, deadline: float) -> tuple[Any, str | None]:
    """Call the task function. Return its result, and the result as JSON if it is kept."""
    args, kwargs = begin(task, claim, deadline)
    result = task.run(args, kwargs)
    return result, succeed(task, claim, result)


async def call_on_loop(task: TaskFunction[..., Any], claim: Claim, deadline: float) -> tuple[Any, str | None]:
    """Await the task function. Return its result, and the result as JSON if it is kept."""
    args, kwargs = begin(task, claim, deadline)
    result = await task.run_on_loop(args, kwargs)
    return result, succeed(task, claim, result)


def begin(task: TaskFunction[..., Any], claim: Claim, deadline: float) -> tuple[list[Any], dict[str, Any]]:
    """Make a claim the current task, and return its arguments. Raises UnreadableArguments."""
    arguments = decode(claim.args, claim.kwargs)
    context.begin(claim, deadline)
    keeps_log = task.options.keep_log
    if current().KEEP_LOG if keeps_log is None else keeps_log:
        kept_log.keep(claim, task)
    if task_started.receivers:
        tell(task_started, task, id=claim.id, attempt=claim.attempts)
    return arguments


def succeed(task: TaskFunction[..., Any], claim: Claim, result: Any) -> str | None:
    """Return the result as JSON if it is kept or passed on. Raises UnserializableResult."""
    is_used = claim.extras_json is not None and claim.uses_result
    encoded = encode_result(result, claim.task_name) if is_used else None
    if task_succeeded.receivers:
        tell(task_succeeded, task, id=claim.id, result=result)
    return encoded


def fail(
    claim: Claim,
    task: TaskFunction[..., Any] | None,
    duration: float,
    failure: BaseException,
    limit: float | None = None,
    is_revoked: bool = False,
    is_worker: bool = True,
) -> Outcome:
    """Return the outcome of a claim that raised an exception.

    `limit`: its soft time limit. `is_worker`: log the failure, and keep the exception for django.tasks only.
    """
    if limit and isinstance(failure, SoftTimeLimitExceeded) and not failure.args:
        failure.args = (f"it took more than {limit:g} s",)
    retry_after = None if task is None or is_revoked else _retry_after(task, claim, failure)
    cause, was_raised = context.cause_of(failure), failure.__traceback__ is not None
    # TaskKilled of the supervisor, which was never raised, contains no arguments
    hides = is_sensitive(claim, task) and (was_raised or not isinstance(cause, TaskKilled))
    outcome = Outcome(
        claim,
        duration,
        _traceback_of(failure if was_raised else cause, hides),
        _reason_of(cause, hides),
        retry_after,
        is_revoked,
        exception=f"{type(cause).__module__}.{type(cause).__qualname__}",
        failure=cause,
    )
    if not is_worker:
        return outcome
    if retry_after is None and not is_revoked:
        _log_failure(outcome, None if hides else cause)
    return outcome if claim.extras.origin and not hides else outcome._replace(failure=None)


def run_eagerly(task: TaskFunction[..., Any], claim: Claim) -> Any:
    """Call a task where it was enqueued, and return its result. Raises what the task raises."""
    inside = contextvars.copy_context()
    try:
        return inside.run(call, task, claim, math.inf)[0]
    except BaseException as failure:
        inside.run(fail, claim, task, 0.0, failure, is_worker=False)
        raise


def note_of(outcome: Outcome) -> Note:
    """Return the logbook's note of an outcome."""
    if outcome.result is not None and outcome.claim.extras.passes_result:
        return Note.BEGUN  # if the Foreman dies now, the result is lost, and nothing can follow
    if not outcome.error:
        return Note.SUCCEEDED
    if outcome.is_revoked:
        return Note.REVOKED
    return Note.FAILED if outcome.retry_after is None else Note.TO_RETRY


def _retry_after(task: TaskFunction[..., Any], claim: Claim, failure: BaseException) -> float | None:
    """Return the delay before the retry, or None if the task has failed, and send the signal for it."""
    retry_after, cause = None, context.cause_of(failure)
    try:
        retry_after = task.options.retry_after(failure, claim.retries)
        if retry_after is None:
            tell(task_failed, task, id=claim.id, exception=cause)
        else:
            tell(task_retried, task, id=claim.id, exception=cause, delay=retry_after)
    except BaseException as error:  # a receiver that calls sys.exit(), an incomplete subclass of Retry
        what = type(error).__name__ if is_sensitive(claim, task) else repr(error)
        name, extra = clean(claim.task_name), about(claim)
        say(ERROR, "After %s #%d failed: %s", name, claim.id, what, extra=extra)
    return retry_after


def _log_failure(outcome: Outcome, cause: BaseException | None) -> None:
    """Log a failure, with its exception if that is shown.

    Called in the worker, because handlers such as Sentry's may be slow. The message contains the task's name,
    so that tools that group by message group by task.
    """
    claim = outcome.claim
    name = clean(claim.task_name).replace("%", "%%")
    shows_arguments = cause is not None and current().LOG_ARGUMENTS
    arguments = f"(*{clean(claim.args)}, **{clean(claim.kwargs)})" if shows_arguments else ""
    say_failure(
        f"Failed {name}%s #%d after %.3f s: %s",
        *(arguments, claim.id, outcome.duration, outcome.reason),
        failure=cause,
        text=outcome.error.rstrip("\n"),
        extra=about(claim, outcome.duration),
    )


def _traceback_of(failure: BaseException, hides: bool) -> str:
    """Return the traceback as text, without its middle if it is long, without messages if it `hides` them."""
    try:
        text = "".join(_frames_of(failure) if hides else traceback.format_exception(failure))
    except BaseException as worse:  # a __str__ that raises, no memory, no stack left
        return f"{type(failure).__name__} (no traceback: {type(worse).__name__} while it was written)"
    return shortened(storable(text), MAX_ERROR)


def _frames_of(failure: BaseException) -> list[str]:
    """Return the lines of a traceback without the messages of the exceptions."""
    before = failure.__cause__ or (None if failure.__suppress_context__ else failure.__context__)
    lines = [*_frames_of(before), "\nand then:\n\n"] if before else []
    frames = traceback.format_tb(failure.__traceback__)
    return [*lines, "Traceback (most recent call last):\n", *frames, f"{type(failure).__name__}: {HIDDEN}\n"]


def _reason_of(failure: BaseException, hides: bool) -> str:
    if hides:
        return f"{type(failure).__name__}: {HIDDEN}"
    try:
        return clean(f"{type(failure).__name__}: {failure}"[:MAX_REASON])
    except BaseException:  # a __str__ that raises
        return type(failure).__name__
