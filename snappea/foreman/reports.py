"""What the Foreman logs about tasks, and the signals that it sends."""

import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from logging import ERROR, INFO, WARNING

from .. import __version__
from ..log import clean, foreman, say, shows
from ..models import Status
from ..queue.dialects import told
from ..queue.records import Claim, Discarded, Expired, Outcome, Recovered, about
from ..signals import task_interrupted, tell
from ..tasks import frameworks
from ..tasks.discovery import failures, find
from ..tasks.function import is_sensitive

#: Whether to print the first line if no log handler shows it.
prints_start = False


def report_start(name: str, workers: int, ready: int, wakeups: str, facts: str) -> None:
    """Log that the Foreman has started. `ready`: how many tasks wait. `wakeups`: their mechanism."""
    said = "Snappea %s, pid %d: %s, %d workers, %s tasks ready, wakeups by %s, %s."
    facts_in_order = __version__, os.getpid(), name, workers, told(ready), wakeups, facts
    say(INFO, said, *facts_in_order)
    if prints_start and not shows(INFO):
        print(said % facts_in_order, "LOGGING shows no INFO of the logger snappea.", file=sys.stderr)


def report_ends(outcomes: Collection[Outcome], with_arguments: bool) -> None:
    """Log each task that ended, and notify the framework that enqueued it. The workers log failures."""
    for framework in frameworks:
        for outcome in outcomes:
            if outcome.claim.extras_json and outcome.claim.extras.origin:
                framework.notify_settled(outcome)
    if not foreman.isEnabledFor(INFO):
        outcomes = [outcome for outcome in outcomes if outcome.error]
    for outcome in outcomes:
        _report(outcome, with_arguments)


def _report(outcome: Outcome, with_arguments: bool) -> None:
    claim, duration, reason = outcome.claim, outcome.duration, outcome.reason
    name, extra = clean(claim.task_name), about(claim, duration)
    if with_arguments and not is_sensitive(claim, find(claim.task_name)):
        name = f"{name}(*{clean(claim.args)}, **{clean(claim.kwargs)})"
    if not outcome.error:
        say(INFO, "Finished %s #%d in %.3f s", name, claim.id, duration, extra=extra)
    elif outcome.is_revoked:
        say(WARNING, "Cancelled %s #%d after %.3f s", name, claim.id, duration, extra=extra)
    elif outcome.retry_after is not None:
        facts = name, claim.id, outcome.retry_after, reason
        say(WARNING, "Retrying %s #%d in %.3f s: %s", *facts, extra=extra)


def report_expired(expired: Iterable[Expired]) -> None:
    """Log the tasks that expired or were discarded."""
    for task in expired:
        name, extra = clean(task.task_name), about(task)
        if isinstance(task, Discarded):
            say(WARNING, "Discarded %s #%d, because its limit is reached", name, task.id, extra=extra)
        elif task.status != Status.SUCCESSFUL:
            say(WARNING, "Expired %s #%d, which waited too long", name, task.id, extra=extra)


def report_recovered(recovered: Collection[Recovered], owner: str = "The last Foreman") -> None:
    """Log the tasks that a dead Foreman left running, and send the signals for them."""
    for outcome, count in Counter(task.outcome for task in recovered).items():
        say(WARNING, "%s left %d running: %s.", owner, count, outcome)
    for task in recovered:
        if task.status:
            report_interrupted(task, task.status)
        elif task.outcome in ("succeeded", "failed", "cancelled"):
            _notify_of_row(task.id)


def report_interrupted(task: Claim | Recovered, status: str | None) -> None:
    """Log that a task was interrupted, and send its signal with the new status."""
    say(WARNING, "Interrupted %s #%d", clean(task.task_name), task.id, extra=about(task))
    if task_interrupted.receivers:
        sender = find(task.task_name, may_import=True)
        tell(task_interrupted, sender, id=task.id, status=status)
    _notify_of_row(task.id)


def _notify_of_row(task_id: int) -> None:
    for framework in frameworks:
        framework.notify_row(task_id)


def report_failed_imports() -> None:
    """Log the task modules that could not be imported, with their tracebacks."""
    for module, failure in failures.items():
        said = "Cannot import %s: %s. Its tasks fail as unknown until it can.\n%s"
        say(ERROR, said, module, clean(failure.reason), failure.traceback.rstrip())
