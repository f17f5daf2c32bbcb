"""The kinds of tasks, and what to expect of each. A task's first argument is its key: "kind:number"."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings

from snappea import current_task, task
from snappea.models import Task
from tests.playground.ledger import note

if TYPE_CHECKING:
    from snappea import TaskFunction

#: The variable with the number of the Foreman, which its child processes inherit.
FOREMAN = "SNAPPEA_SOAK_FOREMAN"
#: How long a retry waits, in seconds.
RETRY_DELAY = 0.4
#: After how long a perishable task expires, in seconds.
SHELF_LIFE = 1.0
#: How many paced tasks are started in a second.
PACE = 5


gc.set_threshold(700, 10, 10)  # as in production; the settings of the tests let garbage grow


class Flaky(Exception):
    """The task must be retried."""


@contextmanager
def noted(key: str) -> Iterator[None]:
    """Note when the task starts, and when it ends or raises."""
    who = key, current_task.id, current_task.attempt
    note("start", *who, os.environ[FOREMAN])
    try:
        yield
    except Exception:
        note("raise", *who)
        raise
    note("end", *who)


def _nap(key: str, seconds: float) -> None:
    with noted(key):
        time.sleep(seconds)


@task
def fast(key: str, seconds: float = 0.0) -> None:
    """Do almost nothing."""
    _nap(key, seconds)


@task
def slow(key: str, seconds: float) -> None:
    """Take a while."""
    _nap(key, seconds)


@task
def failing(key: str, seconds: float) -> None:
    """Raise."""
    with noted(key):
        raise ValueError(f"no luck with {key}")


@task(autoretry_for=(Flaky,), max_retries=2, default_retry_delay=RETRY_DELAY)
def retrying(key: str, seconds: float) -> None:
    """Succeed the third time, or never."""
    with noted(key):
        if current_task.attempt < 3 or key.endswith("7"):
            raise Flaky(key)


@task(acks_late=True)
def late(key: str, seconds: float) -> None:
    """May be repeated."""
    _nap(key, seconds)


@task(isolate=True)
def isolated(key: str, seconds: float) -> None:
    """Run in a process of its own."""
    _nap(key, seconds)


@task(isolate=True, acks_late=True)
def isolated_late(key: str, seconds: float) -> None:
    """Run in a process of its own, and may be repeated."""
    _nap(key, seconds)


@task(isolate=True)
def dying(key: str, seconds: float) -> None:
    """End the process, which runs this task alone."""
    with noted(key):
        note("raise", key, current_task.id, current_task.attempt)
        os.kill(os.getpid(), signal.SIGKILL)


@task
async def coroutine(key: str, seconds: float) -> None:
    """Wait on the event loop."""
    with noted(key):
        await asyncio.sleep(seconds)


@task(unique=True)
def unique_waiting(key: str, seconds: float) -> None:
    """Be unique while waiting."""
    _nap(key, seconds)


@task(unique="running")
def unique_running(key: str, seconds: float) -> None:
    """Be unique until finished."""
    _nap(key, seconds)


@task(max_concurrency=2)
def pair(key: str, seconds: float) -> None:
    """Run with at most one other."""
    _nap(key, seconds)


@task(max_concurrency=1, concurrency_key=lambda key, _seconds: key.partition(":")[0])
def alone(key: str, seconds: float) -> None:
    """Run alone among those of the same kind of key."""
    _nap(key, seconds)


@task(rate_limit=f"{PACE}/s")
def paced(key: str, seconds: float) -> None:
    """Start at even intervals."""
    _nap(key, 0)


@task(expires=SHELF_LIFE)
def perishing(key: str, seconds: float) -> None:
    """Expire soon."""
    _nap(key, seconds)


@task(result_ttl=5)
def kept(key: str, seconds: float) -> str:
    """Leave a result, for a while."""
    _nap(key, seconds)
    return key


@task
def parent(key: str, seconds: float) -> None:
    """Enqueue another one."""
    with noted(key):
        child = key.replace("parent", "child")
        note("try", child, "-", "-")
        note("ack", child, fast.delay(child).id)


@task(priority=90)
def canary(key: str) -> None:
    """Report that it was started."""
    with noted(key):
        Path(settings.DIR / key).touch()


def _tick(kind: str) -> None:
    run_after = Task.objects.values_list("run_after", flat=True).get(pk=current_task.id)
    assert run_after
    with noted(f"{kind}:{run_after.isoformat()}"):
        pass


@task(every=timedelta(seconds=1))
def each_second() -> None:
    """Note the tick."""
    _tick("each_second")


@task(cron="*/2 * * * * *")
def each_other_second() -> None:
    """Note the tick."""
    _tick("each_other_second")


class Kind(NamedTuple):
    """A kind of task, and what to expect of it. `share`: how often it is enqueued, relative to the others.

    `seconds`: the longest duration. `at_once`: how many of a kind may run at the same time; `alike`: how many
    different keys there are, if calls are identical. `may_fail`: a `failed` row is correct.
    """

    task: "TaskFunction[..., Any]"
    share: float
    seconds: float = 0.01
    at_once: int | None = None
    alike: int = 0
    acks_late: bool = False
    may_fail: bool = False
    burst: int = 1
    uses_worker: bool = True
    is_isolated: bool = False


KINDS = {
    "fast": Kind(fast, 30),
    "many": Kind(fast, 1, burst=20),
    "slow": Kind(slow, 1.5, 1.5),
    "failing": Kind(failing, 4, may_fail=True),
    "retrying": Kind(retrying, 4, may_fail=True),
    "due": Kind(fast, 10),
    "late": Kind(late, 10, 0.2, acks_late=True),
    "isolated": Kind(isolated, 3, 0.2, is_isolated=True),
    "isolated_late": Kind(isolated_late, 2, 0.2, acks_late=True, is_isolated=True),
    "dying": Kind(dying, 1, may_fail=True, is_isolated=True),
    "coroutine": Kind(coroutine, 10, 1.0, uses_worker=False),
    "unique_waiting": Kind(unique_waiting, 4, 0.1, alike=2),
    "unique_running": Kind(unique_running, 4, 0.1, at_once=1, alike=2),
    "pair": Kind(pair, 5, 0.2, at_once=2),
    "ann": Kind(alone, 2, 0.2, at_once=1),
    "bob": Kind(alone, 2, 0.2, at_once=1),
    "paced": Kind(paced, 0.3, burst=10),
    "perishing": Kind(perishing, 4),
    "kept": Kind(kept, 4),
    "parent": Kind(parent, 3),
    # not enqueued by the enqueuers
    "child": Kind(fast, 0),
    "canary": Kind(canary, 0),
    "each_second": Kind(each_second, 0),
    "each_other_second": Kind(each_other_second, 0),
}
TICKS = ("each_second", "each_other_second")


def kind_of(key: str) -> str:
    """Return the name of a key's kind."""
    return key.partition(":")[0]
