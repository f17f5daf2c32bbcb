"""Limits that are changed at run time: they also apply to calls that wait.

>>> from snappea import limits
>>> limits.set("shop.tasks.charge", max_concurrency=2)
"""

from typing import Any

from .conf import uses_celery
from .errors import ConfigurationError
from .queue import groups, operations
from .queue.database import connect, raw
from .tasks.discovery import discover, resolve
from .tasks.extras import lane_of
from .tasks.function import TaskFunction
from .tasks.options import MOST, fault_of_limit, rate_of, rate_text

_KEPT: Any = object()


def set(
    task: str | TaskFunction[..., Any],
    *,
    key: object = None,
    max_concurrency: int | None = _KEPT,
    rate_limit: str | None = _KEPT,
) -> None:
    """Change the limits of a task, in place of those of `@task`, until `reset()`. Running calls continue.

    `task`: the task or its name. `key`: only for calls with this `concurrency_key`. `max_concurrency` may
    also be 0: no call starts. None: no limit. Raises UnknownTask, ValueError for an invalid limit, and
    ConfigurationError if the task has no limits that could change.

    >>> set("shop.tasks.charge", key="acme", rate_limit="5/s burst 10")
    """
    name, lane = _group(task, key)
    stops = max_concurrency == 0 and max_concurrency is not False
    checked = {"max_concurrency": None if stops else max_concurrency, "rate_limit": rate_limit}
    for option, value in checked.items():
        if value is not _KEPT and (fault := fault_of_limit(option, value)):
            raise ValueError(f"{option} is {fault}.")
    limit = None if max_concurrency is _KEPT else int(MOST if max_concurrency is None else max_concurrency)
    rate = (None, None) if rate_limit is _KEPT else rate_of(rate_limit) if rate_limit else (0, None)
    if limit is None and rate[0] is None:
        raise ValueError("Give max_concurrency or rate_limit.")
    operations.set_limits(name, lane, limit, *rate)


def reset(task: str | TaskFunction[..., Any], *, key: object = None) -> bool:
    """Apply the limits of `@task` again. Return whether `set()` had changed them.

    Raises UnknownTask or ConfigurationError, as `set()` does, unless these limits had been changed.
    """
    if isinstance(task, str):
        lane = task if key is None else lane_of(task, key)
        if lane in groups.changed(raw(connect())):  # perhaps the task is gone from the code
            return operations.reset_limits(task, lane)
    return operations.reset_limits(*_group(task, key))


def changed() -> dict[str, dict[str, int | str | None]]:
    """Return the limits that were changed, by the name of the task or, with a key, by "name:key".

    >>> changed()
    {'shop.tasks.charge': {'max_concurrency': 2}, 'shop.tasks.charge:acme': {'rate_limit': '5/s burst 10'}}
    """
    found: dict[str, dict[str, int | str | None]] = {}
    for lane, limits in groups.changed(raw(connect())).items():
        found[lane] = {}
        if limits.limit is not None:
            found[lane]["max_concurrency"] = None if limits.limit == MOST else limits.limit
        if limits.interval is not None:
            rate = rate_text(limits.interval, limits.burst) if limits.interval else None
            found[lane]["rate_limit"] = rate
    return found


def _group(task: str | TaskFunction[..., Any], key: object) -> tuple[str, str]:
    if uses_celery():
        raise ConfigurationError("Celery runs the tasks, without these limits.")
    discover()  # a web process may not have imported the task
    options = (resolve(task) if isinstance(task, str) else task).options
    if not options.is_limited:
        raise ConfigurationError(
            f"{options.name} has no limits that could change. Give it max_concurrency or rate_limit in "
            "@task; it may be a high one, such as max_concurrency=1000."
        )
    if key is not None and options.concurrency_key is None:
        raise ConfigurationError(f"{options.name} has no concurrency_key.")
    return options.name, options.name if key is None else lane_of(options.name, key)
