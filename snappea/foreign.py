"""Names that other task queues use, and what to write here instead: for errors, which name the equivalent."""

import difflib
from collections.abc import Iterable

_ON_COMMIT = "a call waits for the commit with delay_on_commit()"
_RESULT = "results are kept by result_ttl, in seconds"
_RETRIES = "use autoretry_for, max_retries and default_retry_delay, or retry_backoff"
_SIGNALS = "connect a receiver to the signals task_succeeded and task_failed"
_NEXT = "enqueue the next task at the end of this one"
_LIMIT = "use soft_time_limit, or time_limit, which runs the task in a process of its own and kills it"
_BASE = "there are no task classes: use HOOK_RUN_TASK_CONTEXT, the signals, or a decorator below @task"
_JSON = "arguments are JSON; leave it out"
_ROUTE = "use queue"
_HERE = "it means nothing here; leave it out"
_ONCE = "use unique=True, or max_concurrency=1"

#: Options of tasks in Celery, RQ, Huey, django-q, dramatiq, procrastinate and django.tasks.
TASK_OPTIONS = {
    "bind": "use current_task instead of `self`, and leave out bind and `self`",
    "base": _BASE,
    "actor_class": _BASE,
    "ignore_result": "leave it out: no result is kept without result_ttl",
    "store_result": _RESULT,
    "store_results": _RESULT,
    "results": _RESULT,
    "save": _RESULT,
    "result_expires": _RESULT,
    "track_started": "leave it out: the status of a task that runs is always `running`",
    "timeout": _LIMIT,
    "job_timeout": _LIMIT,
    "soft_timeout": "use soft_time_limit",
    "hard_timeout": "use time_limit",
    "ttl": "use expires, in seconds",
    "max_age": "use expires, in seconds",
    "failure_ttl": "failures are kept; `manage.py snappea purge failed --older-than 7d` deletes them",
    "retry": _RETRIES,
    "retries": _RETRIES,
    "retry_delay": _RETRIES,
    "max_attempts": _RETRIES,
    "attempts": _RETRIES,
    "retry_when": _RETRIES,
    "retry_on": "use autoretry_for",
    "throws": "use dont_autoretry_for for exceptions after which it is not tried again",
    "min_backoff": "use retry_backoff, in seconds",
    "max_backoff": "use retry_backoff_max, in seconds",
    "acks_on_failure_or_timeout": "leave it out: a task that failed is kept, and is not delivered again",
    "ack_failure": "leave it out: a task that failed is kept, and is not delivered again",
    "reject_on_worker_lost": "use acks_late=True",
    "default_priority": "use priority",
    "at_front": "use priority: higher first",
    "queue_name": _ROUTE,
    "cluster": _ROUTE,
    "routing_key": _ROUTE,
    "exchange": _ROUTE,
    "task_name": "use name",
    "actor_name": "use name",
    "job_id": _ONCE,
    "task_id": "use unique=True; the id is the row's",
    "lock": _ONCE,
    "queueing_lock": "use unique=True",
    "once": _ONCE,
    "singleton": _ONCE,
    "max_instances": "use max_concurrency",
    "coalesce": 'use unique=True or "running"',
    "context": "use current_task, in place of the argument",
    "pass_context": "use current_task, in place of the argument",
    "takes_context": "use current_task, in place of the argument",
    "crontab": 'use cron="0 3 * * *"',
    "schedule": 'use cron="0 3 * * *", or every=600',
    "run_every": "use every, in seconds",
    "interval": "use every, in seconds",
    "countdown": "give it with the call: apply_async((1,), countdown=60)",
    "eta": "give it with the call: apply_async((1,), eta=when)",
    "delay": "give it with the call: apply_async((1,), countdown=60)",
    "run_after": "give it with the call: apply_async((1,), eta=when)",
    "link": _NEXT,
    "link_error": _SIGNALS,
    "on_success": _SIGNALS,
    "on_failure": _SIGNALS,
    "on_stopped": "catch TaskRevoked inside the task",
    "on_retry": "connect a receiver to the signal task_retried",
    "hook": _SIGNALS,
    "before_start": "connect a receiver to the signal task_started",
    "after_return": _SIGNALS,
    "depends_on": _NEXT,
    "chain": _NEXT,
    "group": _NEXT,
    "on_commit": _ON_COMMIT,
    "commit_mode": _ON_COMMIT,
    "sync": "set TASK_ALWAYS_EAGER in tests",
    "serializer": _JSON,
    "compression": _JSON,
    "pickle": _JSON,
    "typing": "leave it out: arguments are always checked",
    "meta": "use current_task.progress(done, total, note)",
    "send_events": _HERE,
    "trail": _HERE,
    "shared": _HERE,
    "lazy": _HERE,
    "autoregister": _HERE,
    "store_errors_even_if_ignored": "leave it out: errors are always kept",
    "resultrepr_maxsize": _HERE,
    "broker": _HERE,
    "backend": _HERE,
    "app": _HERE,
    "connection": _HERE,
    "description": "use a docstring",
}

#: Options of a call in Celery, and in others.
CALL_OPTIONS = {
    "link": _NEXT,
    "link_error": _SIGNALS,
    "headers": "pass a keyword argument; for every call, SNAPPEA has HOOK_ADD_TASK_KWARGS",
    "retry": "leave it out: an error of the database is raised as EnqueueError",
    "retry_policy": "leave it out: an error of the database is raised as EnqueueError",
    "soft_time_limit": "give it with the task: @task(soft_time_limit=30)",
    "time_limit": "give it with the task: @task(time_limit=60)",
    "max_retries": "give it with the task: @task(max_retries=5)",
    "routing_key": _ROUTE,
    "exchange": _ROUTE,
    "router": _ROUTE,
    "queue_name": _ROUTE,
    "task_id": "use unique=True with the task; the id is the row's",
    "shadow": "use name with the task",
    "serializer": _JSON,
    "compression": _JSON,
    "delay": "use countdown, in seconds",
    "run_after": "use eta",
    "result_expires": "use result_ttl, in seconds",
    "on_commit": "use transaction.on_commit(lambda: task.apply_async(...)), or delay_on_commit()",
    **dict.fromkeys(
        ("producer", "publisher", "connection", "delivery_mode", "mandatory", "immediate", "reply_to"), _HERE
    ),
    **dict.fromkeys(("root_id", "parent_id", "group_id", "correlation_id"), _HERE),
    "chain": _NEXT,
    "chord": _NEXT,
}

#: Keys of SNAPPEA in the original Snappea.
SETTINGS = {
    "PID_FILE": "Take it out: a lock of the kernel beside the database keeps a second Foreman away.",
    "WAKEUP_CALLS_DIR": "Take it out: the wakeup file is beside the database, at its NAME with -wakeup.",
    "TASK_QS_LIMIT": "Take it out: the Foreman itself decides how many tasks it claims at once.",
}


def instead(key: str, equivalents: dict[str, str], known: Iterable[str]) -> str:
    """Return what to write instead of an option that there is not: its equivalent, or one spelled like it."""
    if key in equivalents:
        return f"{equivalents[key]}."
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(known)}."
