"""Options of other task queues and their equivalents here, for error messages."""

from collections.abc import Iterable
from difflib import get_close_matches

_LEAVE_OUT = "it has no meaning here: remove it"
_SIGNALS = "connect receivers to the signals task_succeeded and task_failed"
_CHAIN = "write a.s().then(b.s())"

#: Options of tasks in Celery, RQ, Huey, django-q, dramatiq, procrastinate and django.tasks, by equivalent.
_OF_TASKS = {
    "use current_task instead of the argument": "context pass_context takes_context",
    "use current_task.progress(done, total, note)": "meta",
    "there are no task classes: use HOOK_RUN_TASK_CONTEXT, signals, or a decorator below @task": "base "
    "actor_class",
    "use result_ttl, in seconds, to keep results": "store_result store_results results save result_expires",
    "remove it: errors are always kept": "store_errors_even_if_ignored",
    "remove it: arguments are always checked": "typing",
    "remove it: arguments are always JSON": "serializer compression pickle",
    "use soft_time_limit, or time_limit, which kills the task's own process": "timeout job_timeout",
    "use soft_time_limit": "soft_timeout",
    "use time_limit": "hard_timeout",
    "use expires, in seconds": "ttl max_age",
    "failures are kept; `manage.py snappea purge failed --older-than 7d` deletes them": "failure_ttl",
    "use autoretry_for, max_retries and default_retry_delay, or retry_backoff": "retry retries retry_delay "
    "max_attempts attempts retry_when",
    "use autoretry_for": "retry_on",
    "use dont_autoretry_for for exceptions after which the task is not retried": "throws",
    "use retry_backoff, in seconds": "min_backoff",
    "use retry_backoff_max, in seconds": "max_backoff",
    "remove it: a failed task is kept, not delivered again": "acks_on_failure_or_timeout acks_on_failure "
    "acks_on_timeout ack_failure",
    "use acks_late=True, and retry_on_kill=True for a task in its own process": "reject_on_worker_lost "
    "retry_on_worker_lost",
    "convert the arguments at the start of the task": "pydantic pydantic_strict pydantic_context "
    "pydantic_dump_kwargs",
    "use priority": "default_priority",
    "use priority: higher first": "at_front",
    "use queue": "queue_name cluster routing_key exchange",
    "use name": "task_name actor_name",
    "use unique=True, or max_concurrency=1": "job_id lock once singleton",
    "use unique=True: the id is the row's primary key": "task_id",
    "use unique=True": "queueing_lock",
    "use max_concurrency": "max_instances",
    'use unique=True or "running"': "coalesce",
    'use cron="0 3 * * *"': "crontab",
    'use cron="0 3 * * *", or every=600': "schedule",
    "use every, in seconds": "run_every interval",
    "pass it with the call: apply_async((1,), countdown=60)": "countdown delay",
    "pass it with the call: apply_async((1,), eta=when)": "eta run_after",
    _CHAIN: "link depends_on chain group",
    _SIGNALS: "link_error on_success on_failure hook after_return",
    "connect a receiver to the signal task_started": "before_start",
    "connect a receiver to the signal task_retried": "on_retry",
    "enqueue the other task, and return": "on_replace",
    "catch TaskRevoked inside the task": "on_stopped",
    "use delay_on_commit() to wait for the commit": "on_commit commit_mode",
    "set TASK_ALWAYS_EAGER in tests": "sync",
    "use a docstring": "description",
    _LEAVE_OUT: "abstract send_events trail shared lazy autoregister resultrepr_maxsize "
    "broker backend app connection",
}
#: Options of a call in Celery and others, by equivalent.
_OF_CALLS = {
    _CHAIN: "link chain chord",
    _SIGNALS: "link_error",
    "pass a keyword argument; for every call, SNAPPEA has HOOK_ADD_TASK_KWARGS": "headers",
    "remove it: a database error is raised as EnqueueError": "retry retry_policy timeout confirm_timeout",
    "remove it: `attempts` counts from the first start": "retries",
    "set it on the task: @task(soft_time_limit=30)": "soft_time_limit",
    "set it on the task: @task(time_limit=60)": "time_limit",
    "set it on the task: @task(max_retries=5)": "max_retries",
    "use queue": "routing_key exchange router route_name queue_name",
    "use @task(unique=True): the id is the row's primary key": "task_id",
    "use @task(name=...)": "shadow",
    "remove it: arguments are always JSON": "serializer compression content_type content_encoding",
    "use expires": "expiration",
    "remove it: the result is always an AsyncResult": "result_cls",
    "use countdown, in seconds": "delay",
    "use eta": "run_after",
    "use result_ttl, in seconds": "result_expires",
    "use transaction.on_commit(lambda: task.apply_async(...)), or delay_on_commit()": "on_commit",
    _LEAVE_OUT: "logfile loglevel producer publisher connection delivery_mode mandatory immediate reply_to "
    "root_id parent_id group_id group_index correlation_id declare task_type replaced_task_nesting",
}
#: Options of Celery's retry(), by equivalent, besides those of a call.
_OF_RETRIES = {
    "a retry keeps its arguments: enqueue another call for others": "args kwargs",
    "a retry keeps its queue, priority and expires": "queue priority expires routing_key exchange",
    "remove it: retry() always raises": "throw",
}
TASK_OPTIONS = {name: cure for cure, names in _OF_TASKS.items() for name in names.split()}
CALL_OPTIONS = {name: cure for cure, names in _OF_CALLS.items() for name in names.split()}
#: Options of other backends of django.tasks, by option.
BACKEND_OPTIONS = {
    "id_function": 'write "UUIDS": True for ids that are UUIDs',
}
RETRY_OPTIONS = CALL_OPTIONS | {name: cure for cure, names in _OF_RETRIES.items() for name in names.split()}


def instead(key: str, equivalents: dict[str, str], known: Iterable[str]) -> str:
    """Return what to use instead of an unknown option: its equivalent, or an option with a similar name."""
    if key in equivalents:
        return f"{equivalents[key]}."
    known = list(known)
    close = get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(known)}."
