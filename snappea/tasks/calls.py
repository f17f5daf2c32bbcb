"""What a call is checked for, beside its arguments, and how its times are written."""

import hashlib
import inspect
import json
import logging
from datetime import datetime, timedelta
from typing import Any

from django.db import connections

from ..conf import current, declared_queues
from ..errors import ArgumentsTooLarge, UnknownQueue
from ..log import say_once
from ..queue.clock import as_text, later, now, seconds_of
from ..queue.records import Extras
from ..sync_only import caller
from .options import MOST, is_queue, is_seconds

logger = logging.getLogger("snappea.tasks")
#: What else may stand for a time, beside seconds from now.
MOMENT = ", a timedelta or an aware datetime"


def checked_tuple(args: object, name: str) -> tuple[Any, ...]:
    """Return one call's positional arguments. Raises TypeError if they are no tuple."""
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"{name}.delay_many() takes tuples of positional arguments, not {args!r}.")
    return tuple(args)


def require_small(name: str, size: int, limit: int) -> None:
    """Raise ArgumentsTooLarge if so many bytes are too many."""
    if size > limit:
        raise ArgumentsTooLarge(
            f"{name}(): the arguments take {size} bytes as JSON, more than MAX_ARGUMENT_BYTES "
            f"({limit}). Store them, and pass the primary key."
        )


def require_queue(name: str, task_name: str) -> None:
    """Raise UnknownQueue if there is no such queue."""
    declared = declared_queues()
    if not is_queue(name):
        raise UnknownQueue(f"{task_name}: queue={name!r} must be a string of 1 to 100 characters.")
    if declared is not None and name not in declared:
        raise UnknownQueue(
            f'{task_name}: there is no queue {name!r} in SNAPPEA["QUEUES"], only '
            f"{', '.join(declared)}. Add it there, or use one of these."
        )


def _is_json(default: Any) -> bool:
    """Tell whether a call can pass a default; one that it cannot is the same for all that leave it out."""
    try:
        json.dumps(default, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def unique_key(name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return what calls have in common that do the same, however their arguments are written."""
    arguments = {p.name: p.default for p in signature.parameters.values() if _is_json(p.default)}
    arguments |= signature.bind(*args, **kwargs).arguments
    text = json.dumps([name, arguments], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def moment_of(when: float | timedelta | datetime, name: str = "countdown") -> str:
    """Return a time, or so many seconds from now, as it stands on a row. `name`: what to call it in errors.

    A time beyond what Python can count to is the first or last that it can. Raises TypeError, and
    ValueError for NaN or a naive datetime.
    """
    if isinstance(when, datetime):
        return as_text(when)
    return later(now(), seconds_of(when, name, MOMENT))


def run_after(countdown: float | timedelta | None, eta: datetime | None) -> str | None:
    """Return when a call is due, None if it is now. Raises TypeError or ValueError."""
    if countdown is not None and eta is not None:
        raise ValueError("Give countdown or eta, not both.")
    if eta is not None and not isinstance(eta, datetime):
        raise TypeError(f"eta={eta!r} must be an aware datetime; countdown is for seconds")
    if eta is not None:
        return as_text(eta)
    if countdown is None or seconds_of(countdown, "countdown") <= 0:
        return None
    return moment_of(countdown)


def with_options(
    extras: Extras | None,
    countdown: float | timedelta | None,
    eta: datetime | None,
    expires: float | timedelta | datetime | None,
    result_ttl: float | None,
) -> Extras | None:
    """Return the terms of a call with the options of apply_async(). Raises TypeError or ValueError."""
    changes: dict[str, Any] = {}
    if due := run_after(countdown, eta):
        changes["run_after"] = due
    if expires is not None:
        changes["expires_at"] = moment_of(expires, "expires")
    if result_ttl is not None:
        if not is_seconds(result_ttl):
            kind = ValueError if isinstance(result_ttl, (int, float)) else TypeError
            raise kind(f"result_ttl={result_ttl!r} must be a number of seconds, from 0 to {MOST:,.0f}")
        changes["result_ttl"] = result_ttl
    return (extras or Extras())._replace(**changes) if changes else extras


def warn_of_open_transaction() -> None:
    """Say once per call site that the task may start before the caller's transaction commits."""
    used = [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]
    used = [connection for connection in used if connection.alias != current().DATABASE]
    if not used:
        return
    say_once(
        logging.WARNING,
        "%s:%d calls delay() inside an open transaction of %r: the task may start before the commit, "
        "and will run even after a rollback. delay_on_commit() waits for the commit.",
        *caller()[1:],
        used[0].alias,
        logger=logger,
    )
