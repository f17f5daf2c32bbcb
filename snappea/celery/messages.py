"""What the options of @task and of a call are in Celery."""

from typing import Any

from ..tasks.options import Options

#: It stands for the queue that Celery's settings name as the default.
DEFAULT_QUEUE = "default"
#: Celery's priorities are from 0 to this.
MOST_URGENT = 9


def task_options(options: Options) -> dict[str, Any]:
    """Return the attributes of Celery's task. Snappea decides whether a task is retried."""
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
        "typing": False,  # Snappea has checked the arguments
    }


def priority_of(priority: int, driver: str) -> int:
    """Return a priority from -100 to 100 as a broker takes it: on Redis 0 is the most urgent."""
    level = round((priority + 100) * MOST_URGENT / 200)
    return MOST_URGENT - level if driver == "redis" else level
