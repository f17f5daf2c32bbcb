"""One task to one Outcome. Never raises, and never writes to the queue's tables."""

import contextvars
import os
import time
import traceback
from logging import DEBUG, ERROR
from typing import Any

from ..conf import current
from ..errors import Retry, SoftTimeLimitExceeded, TaskKilled, TaskRevoked
from ..log import INTERRUPTIONS, clean, foreman, say, say_failure, shortened
from ..queue.files import at_fork
from ..queue.logbook import Note
from ..queue.records import Claim, Outcome
from ..signals import task_failed, task_retried, task_started, task_succeeded, tell
from ..tasks.arguments import decode, encode_result
from ..tasks.context import begin
from ..tasks.registry import TaskFunction, is_sensitive, task_of
from .cleanup import close_caches
from .cleanup import close_connections as close_connections
from .cleanup import tidy_connections as tidy_connections
from .limits import TaskHandle

#: The most that is kept of an error, in characters.
MAX_ERROR = 20_000
#: The most of it that a line of the log shows, in characters.
MAX_REASON = 300
#: What is shown instead of what an exception of a sensitive task says.
HIDDEN = "(not shown: the task is sensitive)"

_forks = 0  # which led to this process; to compare it costs less than to ask for the process's number


def _count_fork() -> None:
    global _forks
    _forks += 1


at_fork(after_in_child=_count_fork)


def run(claim: Claim, handle: TaskHandle) -> Outcome:
    """Run a claimed task in this thread and return what became of it, whatever that is."""
    say_start(claim)
    forks = _forks
    task: TaskFunction[..., Any] | None = None
    failure: BaseException | None = None
    result: str | None = None
    limit: float | None = None
    # a context of its own: what a task activates (a language, a time zone) ends with it
    inside = contextvars.Context()
    began = time.monotonic()
    try:
        handle.take(claim)
        task = task_of(claim)
        limit = task.soft_time_limit(claim.queue)
        deadline = handle.deadline if limit is None else handle.limit(limit)
        result = inside.run(call, task, claim, deadline)
    except BaseException as raised:
        failure = raised
    try:
        try:
            if forks != _forks:
                os._exit(1 if failure else 0)  # the task forked, and this is the child: it has no claim
            ending = handle.put_down()
        except INTERRUPTIONS:  # it came a moment too late; and so may one more
            ending = handle.put_down()
    except INTERRUPTIONS:
        ending = handle.put_down()
    duration = time.monotonic() - began
    close_caches(inside)
    if failure is None:
        return Outcome(claim, duration, result=result)
    return outcome_of_failure(claim, task, duration, failure, ending is TaskRevoked, limit)


def say_start(claim: Claim) -> None:
    """Log that a task begins."""
    if foreman.isEnabledFor(DEBUG):
        say(DEBUG, "Starting %s #%d", clean(claim.task_name), claim.id)


def outcome_of_failure(
    claim: Claim,
    task: TaskFunction[..., Any] | None,
    duration: float,
    failure: BaseException,
    is_revoked: bool,
    limit: float | None,
) -> Outcome:
    """Tell what is next after a claim raised something, and return its outcome."""
    if limit and isinstance(failure, SoftTimeLimitExceeded) and not failure.args:
        failure.args = (f"it took more than {limit:g} s",)
    outcome = after_failure(claim, task, duration, failure, is_revoked)
    _report(outcome, None if is_sensitive(claim, task) else cause_of(failure))
    return outcome


def after_failure(
    claim: Claim,
    task: TaskFunction[..., Any] | None,
    duration: float,
    failure: BaseException,
    is_revoked: bool = False,
) -> Outcome:
    """Do as outcome_of_failure(), without a word to the log."""
    retry_after = None
    if task is not None and not is_revoked:
        retry_after = _next_try(task, claim, failure)
    cause, hides = cause_of(failure), is_sensitive(claim, task)
    text, reason = _traceback_of(failure, hides), _reason_of(cause, hides)
    outcome = Outcome(claim, duration, text, reason, retry_after, is_revoked)
    return _with_cause(outcome, cause, hides)


def _report(outcome: Outcome, cause: BaseException | None) -> None:
    """Log a failure, with the exception, if that is not to be hidden; not what is tried again.

    Here, and not by the Foreman with all other ends: whoever listens (Sentry, say) may take his time. The
    name is part of the message, so that what groups by messages groups by tasks.
    """
    claim = outcome.claim
    if outcome.retry_after is not None or outcome.is_revoked:
        return
    name = clean(claim.task_name).replace("%", "%%")
    has_arguments = cause is not None and current().LOG_ARGUMENTS
    arguments = f"(*{clean(claim.args)}, **{clean(claim.kwargs)})" if has_arguments else ""
    say_failure(
        f"Failed {name}%s #%d after %.3f s: %s",
        *(arguments, claim.id, outcome.duration, outcome.reason),
        failure=cause,
        text=outcome.error.rstrip("\n"),
        task_name=claim.task_name,
        task_id=claim.id,
    )


def call(task: TaskFunction[..., Any], claim: Claim, deadline: float) -> str | None:
    """Call the function, and return its result as JSON if that is to be kept."""
    args, kwargs = decode(claim.args, claim.kwargs)
    begin(claim, deadline)
    if task_started.receivers:
        tell(task_started, task, id=claim.id, attempt=claim.attempts)
    result = task.run(args, kwargs)
    encoded = result_to_keep(claim, result) if claim.extras else None
    if task_succeeded.receivers:
        tell(task_succeeded, task, id=claim.id, result=result)
    return encoded


def result_to_keep(claim: Claim, result: Any) -> str | None:
    """Return a result as JSON; None if it is not to be kept. Raises UnserializableResult."""
    return None if claim.result_ttl is None else encode_result(result, claim.task_name)


def note_of(outcome: Outcome) -> Note:
    """Return what the logbook says of an outcome."""
    if not outcome.error:
        return Note.SUCCEEDED
    return Note.FAILED if outcome.retry_after is None else Note.TO_RETRY


def _next_try(task: TaskFunction[..., Any], claim: Claim, failure: BaseException) -> float | None:
    """Tell what is next, and return in how many seconds to try again; None if it has failed."""
    retry_after, cause = None, cause_of(failure)
    try:
        retry_after = task.retry_after(failure, claim.attempts - 1 - claim.interruptions)
        if retry_after is None:
            tell(task_failed, task, id=claim.id, exception=cause)
        else:
            tell(task_retried, task, id=claim.id, exception=cause, delay=retry_after)
    except BaseException as error:  # a receiver that wants to exit, a Retry that is only half made
        what = type(error).__name__ if is_sensitive(claim, task) else repr(error)
        say(ERROR, "After %s #%d had failed: %s", clean(claim.task_name), claim.id, what)
    return retry_after


def after_death(task: TaskFunction[..., Any], claim: Claim, failure: Exception, duration: float) -> Outcome:
    """Return the outcome of a claim whose process died with it, after telling those who listen."""
    retry_after = _next_try(task, claim, failure)
    cause, hides = cause_of(failure), is_sensitive(claim, task) and not isinstance(failure, TaskKilled)
    outcome = Outcome(claim, duration, _traceback_of(cause, hides), _reason_of(cause, hides), retry_after)
    _report(outcome, None if hides else cause)
    return _with_cause(outcome, cause, hides)


def _with_cause(outcome: Outcome, cause: BaseException, hides: bool) -> Outcome:
    """Return an outcome with what was raised, if somebody is to hear of that."""
    if outcome.claim.origin is None:
        return outcome
    kind = type(cause)
    path = f"{kind.__module__}.{kind.__qualname__}"
    return outcome._replace(exception=path, failure=None if hides else cause)


def cause_of(failure: BaseException) -> BaseException:
    """Return what is behind a Retry; any other exception as it is."""
    return failure.exc if isinstance(failure, Retry) and failure.exc else failure


def _traceback_of(failure: BaseException, hides: bool) -> str:
    """Return the traceback as text, the middle left out if it is long.

    If it `hides` something: only where it came to pass and what it was, without what the exceptions say.
    """
    try:
        text = "".join(_places_of(failure) if hides else traceback.format_exception(failure))
    except BaseException as worse:  # a __str__ that raises, no memory, no stack left
        return f"{type(failure).__name__} (no traceback: {type(worse).__name__} while it was written)"
    return shortened(text.encode(errors="backslashreplace").decode().replace("\0", "\\x00"), MAX_ERROR)


def _places_of(failure: BaseException) -> list[str]:
    """Return the lines of a traceback that hides what the exceptions say."""
    before = failure.__cause__ or (None if failure.__suppress_context__ else failure.__context__)
    lines = [*_places_of(before), "\nand then:\n\n"] if before else []
    frames = traceback.format_tb(failure.__traceback__)
    return [*lines, "Traceback (most recent call last):\n", *frames, f"{type(failure).__name__}: {HIDDEN}\n"]


def _reason_of(failure: BaseException, hides: bool) -> str:
    """Return the error in one line."""
    if hides:
        return f"{type(failure).__name__}: {HIDDEN}"
    try:
        return clean(f"{type(failure).__name__}: {failure}"[:MAX_REASON])
    except BaseException:  # a __str__ that raises
        return type(failure).__name__
