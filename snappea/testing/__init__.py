"""For the tests of your project: see which calls were enqueued, and run them.

While tests run, `delay()` keeps calls in memory (`SNAPPEA["IN_TESTS"]`). Each test starts with none.

>>> class SignUp(TestCase):
...     def test_welcome(self):
...         with self.captureOnCommitCallbacks(execute=True):
...             self.client.post("/sign-up/", {"email": "a@example.com"})
...         assert_enqueued(send_welcome, "a@example.com")
...         drain()
...         self.assertEqual(len(mail.outbox), 1)
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

from django.conf import settings
from django.test.utils import override_settings

from ..conf import hook
from ..models import WAITING, Task
from ..queue import store
from ..queue.clock import as_datetime, now
from ..queue.database import connect, transact
from ..queue.files import IS_UNIX, NEEDS_UNIX
from ..queue.records import Claim, Outcome
from ..tasks import context, engine, frameworks, kept_log
from ..tasks.function import TaskFunction
from ..tasks.memory_engine import MEMORY, MemoryEngine
from ..workers.execute import execute
from ..workers.limits import Handle
from .live import LiveForeman, run_foreman

P = ParamSpec("P")
#: The number of tasks after which drain() gives up.
AT_MOST = 10_000


class Enqueued(NamedTuple):
    """A waiting call. `args` is a list, `kwargs` a dict. `run_after`: when it is due; None: at once."""

    id: int
    task_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    priority: int
    run_after: datetime | None


def enqueued(task: TaskFunction[..., Any] | None = None) -> list[Enqueued]:
    """Return the waiting calls, of one task or all, in the order in which they were enqueued.

    >>> assert [call.args for call in enqueued(send_mail)] == [[42]]
    """
    return [
        Enqueued(
            *(row.pk, row.task_name, json.loads(row.args), json.loads(row.kwargs)),
            *(row.queue, row.priority, row.run_after),
        )
        for row in _calls().waiting()
        if task is None or row.task_name == task.name
    ]


def assert_enqueued(task: TaskFunction[P, Any], *args: P.args, **kwargs: P.kwargs) -> Enqueued:
    """Assert that a call with these arguments, by position or by name, waits. Return the latest such call.

    The AssertionError shows the calls that wait instead.

    >>> assert assert_enqueued(send_mail, user_id=42).queue == "mail"
    """
    expected = task.call(args, kwargs)
    wanted = _bound(task, json.loads(expected.args), json.loads(expected.kwargs))
    found = [call for call in enqueued(task) if _bound(task, call.args, call.kwargs) == wanted]
    if found:
        return found[-1]
    waiting = [f"    {call.task_name}{_shown(call.args, call.kwargs)}" for call in enqueued()]
    raise AssertionError(
        f"{task.name}{_shown(args, kwargs)} was not enqueued. "
        + ("\n".join(["Waiting calls:", *waiting]) if waiting else "No calls wait.")
    )


def _bound(task: TaskFunction[..., Any], args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by name, without those of HOOK_ADD_TASK_KWARGS."""
    if added := hook("HOOK_ADD_TASK_KWARGS"):
        parameters, additions = task.signature.parameters, added()
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        own = {name for name in kwargs if name in parameters or (takes_any and name not in additions)}
        kwargs = {name: kwargs[name] for name in own}
    bound = task.spelling(tuple(args), kwargs).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _shown(args: Any, kwargs: dict[str, Any]) -> str:
    words = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return f"({', '.join(words)})"


def clear() -> None:
    """Forget the calls in memory. Snappea does so before each test."""
    MEMORY.clear()


def drain(including_scheduled: bool = False, raise_failures: bool = True, at_most: int = AT_MOST) -> int:
    """Run ready tasks, and the tasks that these enqueue, in this thread. Return the number of runs.

    Tasks run one by one, in the Foreman's order, but without limits (of time, memory, rate, concurrency) and
    child processes. `including_scheduled`: also run scheduled tasks and retries, in the order of their times,
    without changing the clock.

    Raises the exception of the first task that fails and is not retried, unless `raise_failures` is False.
    Raises RuntimeError if tasks are left after `at_most` runs, 10,000 by default.

    >>> assert drain(including_scheduled=True) == 2
    """
    for count in range(at_most):
        claim = _calls().claim(including_scheduled)
        if claim is None:
            return count
        outcome = execute(claim, Handle())
        _calls().settle(outcome)
        context.take_progress([claim.id])
        kept_log.take_log(claim.fence, closes=True)
        for framework in frameworks if claim.extras.origin else ():
            framework.notify_settled(outcome, is_urgent=True)
        failure = None if outcome.retry_after is not None else outcome.failure
        if isinstance(failure, KeyboardInterrupt) or (failure and raise_failures):
            raise failure
    here = as_datetime(now())
    waiting = _calls().waiting()
    if not any(including_scheduled or row.run_after is None or row.run_after <= here for row in waiting):
        return at_most
    raise RuntimeError(f"drain() has run {at_most} tasks, and there are more: do they enqueue themselves?")


class _Rows:
    """The calls in the queue's table, with the interface of MemoryEngine."""

    def waiting(self) -> Iterable[Task]:
        return Task.objects.filter(status__in=WAITING).order_by("pk")

    def claim(self, including_scheduled: bool) -> Claim | None:
        with transact(connect()) as db:
            store.expire(db, now())
            store.promote(db, now())
            claim = store.claim_any(db, now())
            if claim is None and including_scheduled and (due := store.peek(db).due):
                store.promote(db, due)
                claim = store.claim_any(db, now())
        return claim

    def settle(self, outcome: Outcome) -> None:
        with transact(connect()) as db:
            store.note_progress(db, context.take_progress([outcome.claim.id]))
            fence = outcome.claim.fence
            if lines := kept_log.take_log(fence, closes=True):
                store.append_logs(db, {fence: "\n".join(lines)})
            store.settle(db, now(), [outcome])


def _calls() -> MemoryEngine | _Rows:
    found = engine.of(0)
    return found if isinstance(found, MemoryEngine) else _Rows()


def override_snappea(**keys: Any) -> override_settings:
    """Return a context manager and decorator that changes single keys of the SNAPPEA setting.

    >>> @override_snappea(TASK_ALWAYS_EAGER=True)
    ... class SignUp(TestCase): ...
    """
    return override_settings(SNAPPEA={**getattr(settings, "SNAPPEA", {}), **keys})


def crash_everywhere(
    task: TaskFunction[..., Any],
    *args: Any,
    check: Callable[[], object] | None = None,
    files: Iterable[Path | str] = (),
    **kwargs: Any,
) -> int:
    """Assert that a call may be repeated after a crash anywhere. Return the number of crashes.

    Runs it in child processes with copies of the databases: kills it after each line of your code in turn,
    runs it again to the end, and compares what is left with a run without a crash: what `check` returns, or
    the numbers of new rows, the mails and the calls. `files`: files and directories that the task changes;
    they are put back before each run, and compared. Raises AssertionError, which names the line, or
    RuntimeError if this cannot work here.

    >>> crash_everywhere(pay, order.pk, check=lambda: Payment.objects.values_list("order", "amount"))
    """
    from .crashes import Crashes  # rarely needed

    __tracebackhide__ = True
    with Crashes(task, task.call(args, kwargs), check, [*map(Path, files)]) as crashes:
        return crashes.run()


@contextmanager
def foreman(timeout: float = 30.0) -> Iterator[LiveForeman]:
    """Run a real Foreman in its own process, on the databases of this test. Calls are written as rows.

    Use it in a TransactionTestCase or LiveServerTestCase with `databases = {"default", "snappea"}` and test
    databases in files. Settings that the test has changed apply there, too, if JSON can carry them. No mail
    is sent, and mail.outbox stays empty. `timeout`: for its start and for its stop, in seconds. Raises
    RuntimeError if the Foreman cannot work here or does not start.

    >>> with foreman() as running:
    ...     send_mail.delay(42)
    ...     running.wait_until_idle()
    """
    if not IS_UNIX:
        raise RuntimeError(NEEDS_UNIX)
    with override_snappea(IN_TESTS="write"), run_foreman(timeout) as started:
        yield started
