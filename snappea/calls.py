"""What a call is checked for, beside its arguments, and how its times are written."""

import hashlib
import inspect
import json
import logging
from datetime import datetime, timedelta
from typing import Any

from django.db import connections

from .conf import current, declared_queues
from .database import as_text, later, now
from .errors import ArgumentsTooLarge, UnknownQueue
from .options import is_queue

Params = inspect.Parameter
logger = logging.getLogger("snappea.tasks")
_warned: set[tuple[str, int]] = set()


def plain_arity(signature: inspect.Signature) -> range | None:
    """Return how many positional arguments fit, None if only bind() can tell."""
    parameters = signature.parameters.values()
    if any(p.kind not in (Params.POSITIONAL_ONLY, Params.POSITIONAL_OR_KEYWORD) for p in parameters):
        return None
    required = sum(p.default is Params.empty for p in parameters)
    return range(required, len(parameters) + 1)


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


def unique_key(name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return what calls have in common that do the same, however their arguments are written."""
    # a default that is not JSON is the same for all calls that leave it out
    plain = (str, int, float, bool)
    arguments = {p.name: p.default for p in signature.parameters.values() if isinstance(p.default, plain)}
    arguments |= signature.bind(*args, **kwargs).arguments
    text = json.dumps([name, arguments], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def moment_of(when: float | timedelta | datetime) -> str:
    """Return a time, or so many seconds from now, as it stands on a row."""
    if isinstance(when, datetime):
        return as_text(when)
    if isinstance(when, bool) or not isinstance(when, (int, float, timedelta)):
        raise TypeError(f"{when!r} must be a number of seconds, a timedelta or an aware datetime")
    return later(now(), when.total_seconds() if isinstance(when, timedelta) else when)


def run_after(countdown: float | timedelta | None, eta: datetime | None) -> str | None:
    """Return when a call is due, None if it is now."""
    if countdown is not None and eta is not None:
        raise ValueError("Give countdown or eta, not both.")
    if eta is not None and not isinstance(eta, datetime):
        raise TypeError(f"eta={eta!r} must be an aware datetime; countdown is for seconds")
    when = countdown if eta is None else eta
    is_now = when is None or (when in (0, timedelta()) and when is not False)
    return None if is_now or when is None else moment_of(when)


def warn_of_open_transaction() -> None:
    """Say once per call site that the task may start before the caller's transaction commits."""
    used = [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]
    used = [connection for connection in used if connection.alias != current().DATABASE]
    if not used:
        return
    frame = inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").startswith("snappea."):
        frame = frame.f_back
    site = (frame.f_code.co_filename, frame.f_lineno) if frame else ("", 0)
    if site not in _warned:
        _warned.add(site)
        logger.warning(
            "%s:%d calls delay() inside an open transaction of %r: the task may start before the commit, "
            "and will run even after a rollback. delay_on_commit() waits for the commit.",
            *site,
            used[0].alias,
        )
