"""Calls as Celery's messages: a message's content, and the claim that a worker makes from it."""

import functools
import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any, cast

from ..queue.clock import as_datetime, now
from ..queue.records import Call, Claim, ClaimExtras, Extras
from ..tasks.discovery import find
from ..tasks.options import Options
from .handover import Ticket

#: The message header that holds what Snappea adds.
HEADER = "snappea"

#: Means the queue in Celery's task_default_queue.
DEFAULT_QUEUE = "default"
#: Celery's priorities are 0 to 9.
MOST_URGENT = 9
#: Options that have the same meaning in Celery.
_COMMON = ["max_retries", "default_retry_delay", "acks_late", "soft_time_limit", "time_limit"]


def task_options(options: Options) -> dict[str, Any]:
    """Return the attributes of Celery's task. Snappea itself decides on retries."""
    return {name: getattr(options, name) for name in _COMMON} | {
        "rate_limit": rate.partition(" ")[0] if isinstance(rate := options.rate_limit, str) else None,
        "reject_on_worker_lost": options.acks_late,
        "ignore_result": options.result_ttl is None,
        "track_started": True,
        "serializer": "json",
        "typing": False,  # Snappea has checked the arguments
    }


def priority_of(priority: int, driver: str) -> int:
    """Convert a priority from -100..100 to the broker's: on Redis, 0 is the most urgent."""
    level = round((priority + 100) * MOST_URGENT / 200)
    return MOST_URGENT - level if driver == "redis" else level


def arguments_of(call: Call) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call for Celery."""
    return json.loads(call.args), json.loads(call.kwargs)


def message_of(call: Call, enqueued_at: str, app: Any, ticket: Ticket | None = None) -> dict[str, Any]:
    """Return the options with which Celery sends a call."""
    extras, task = call.extras or Extras(), find(call.task_name)
    header: dict[str, Any] = {
        "enqueued_at": enqueued_at,
        "result_ttl": extras.result_ttl if extras.keeps_result else None,
        "parent_id": extras.parent_id,
        "expires_at": extras.expires_at,
    }
    if ticket:
        header["ticket"] = list(ticket)
    options: dict[str, Any] = {
        "headers": {HEADER: header},
        "priority": priority_of(call.priority, _driver_of(app)),
        "ignore_result": header["result_ttl"] is None,
    }
    if call.queue != DEFAULT_QUEUE:
        options["queue"] = call.queue
    if extras.run_after:
        options["eta"] = as_datetime(extras.run_after).astimezone(UTC)
    if extras.expires_at:
        options["expires"] = as_datetime(extras.expires_at).astimezone(UTC)
    if task:
        options["soft_time_limit"] = task.soft_time_limit(call.queue)
    return options


@functools.cache
def _driver_of(app: Any) -> str:
    """Return the type of Celery's broker, such as "redis"."""
    return str(app.connection_for_write().transport.driver_type)


def header_of(request: Any) -> Mapping[str, Any]:
    """Return what Snappea added to a message; empty if another program sent it."""
    return cast(Mapping[str, Any], (request.headers or {}).get(HEADER) or {})


def claim_of(celerys: Any, options: Options, args: Any, kwargs: Any) -> Claim:
    """Return the claim that a worker of the Foreman would get. `celerys`: Celery's task."""
    request, header = celerys.request, header_of(celerys.request)
    queue = (request.delivery_info or {}).get("routing_key") or DEFAULT_QUEUE
    if queue == celerys.app.conf.task_default_queue:
        queue = DEFAULT_QUEUE
    ttl = header["result_ttl"] if header else options.result_ttl
    # in Celery, a retried task is its own parent
    parent = header["parent_id"] if header else request.parent_id
    expires_at = header.get("expires_at")
    extras = ClaimExtras(ttl, parent_id=parent, expires_at=expires_at, is_sensitive=options.sensitive)
    return Claim(
        0,
        request.id,
        0,
        celerys.name,
        json.dumps(args),
        json.dumps(kwargs),
        queue,
        request.retries + 1,
        header.get("enqueued_at") or now(),
        extras_json=extras.as_json(),
    )
