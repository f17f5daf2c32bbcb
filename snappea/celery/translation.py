"""What the options of @task come to with Celery, and what has no equivalent there."""

from collections.abc import Callable
from typing import Any

from ..conf import current
from ..tasks.options import Options
from ..tasks.registry import declared

#: What Celery calls the queue that is meant if nothing is said is its own affair.
DEFAULT_QUEUE = "default"
#: Celery's priorities are from 0 to this.
MOST_URGENT = 9
_SPAN = 200  # ours are from -100 to 100

#: What of a task Celery cannot do: which tasks have it, and what becomes of it.
_GAPS: dict[str, tuple[Callable[[Options], bool], str]] = {
    "unique": (lambda o: bool(o.unique), "identical calls are run as often as they are made"),
    "max_concurrency": (
        lambda o: o.max_concurrency is not None,
        "as many run at a time as there are workers; give them a queue of their own, and a worker with "
        "--concurrency",
    ),
    "concurrency_key": (lambda o: o.concurrency_key is not None, "it is not asked"),
    "rate_limit": (lambda o: o.rate_limit is not None, "each of Celery's workers holds it for itself"),
    "isolate": (
        lambda o: o.isolate,
        "it runs in one of the processes of the prefork pool, in which others ran before",
    ),
    "max_memory": (lambda o: o.max_memory is not None, "nothing bounds it; see worker_max_memory_per_child"),
    "retry_on_kill": (lambda o: o.retry_on_kill, "what is killed has failed; see acks_late"),
    "sensitive": (
        lambda o: o.sensitive and o.result_ttl is not None,
        "what it returns stands in the log of Celery's worker, and in its result backend",
    ),
}


def gaps() -> dict[str, tuple[str, list[str]]]:
    """Return which options have no equivalent: what becomes of each, and the tasks that have it."""
    found = {}
    tasks = sorted(declared(), key=lambda task: task.name)
    for option, (has_it, what) in _GAPS.items():
        if names := [task.name for task in tasks if has_it(task.options)]:
            found[option] = what, names
    limited = [name for name, limits in (current().QUEUES or {}).items() if "max_concurrency" in limits]
    if limited:
        found['QUEUES: "max_concurrency"'] = "a queue has no limit there", sorted(limited)
    return found


def task_options(options: Options) -> dict[str, Any]:
    """Return the attributes of Celery's task. Whether it is tried again Snappea decides itself."""
    return {
        "max_retries": options.max_retries,
        "default_retry_delay": options.default_retry_delay,
        "rate_limit": options.rate_limit,
        "acks_late": options.acks_late,
        "reject_on_worker_lost": options.acks_late,
        "soft_time_limit": options.soft_time_limit,
        "time_limit": options.time_limit,
        "ignore_result": options.result_ttl is None,
        "track_started": True,
        "serializer": "json",
        "typing": False,  # ours are checked already
    }


def priority_of(priority: int, driver: str) -> int:
    """Return a priority of ours, from -100 to 100, as a broker takes it: on Redis 0 is the most urgent."""
    level = round((priority + _SPAN / 2) * MOST_URGENT / _SPAN)
    return MOST_URGENT - level if driver == "redis" else level
