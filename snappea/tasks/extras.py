"""What the options of a call write on its row, beyond the columns that each call has."""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..conf import current, is_span, shown
from ..queue.clock import as_text, later, now, seconds_of
from ..queue.records import Extras
from .arguments import simplified
from .options import MOST, TAGS, are_tags, fault_of_limit, is_seconds, rate_of

#: What a time may be, besides a number of seconds from now.
MOMENT = ", a timedelta or an aware datetime"
MAX_LANE, MAX_FAIR_KEY = 600, 200  # characters


def extras_of(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], parent_id: int | None) -> Extras:
    """Return the columns that a TaskFunction's options add to a call."""
    options = task.options
    lane = None
    limit = _limit(task, "max_concurrency", args, kwargs)
    interval, burst = rate_of(_limit(task, "rate_limit", args, kwargs))
    if options.is_limited:
        lane = options.name
        if options.concurrency_key is not None:
            lane = lane_of(lane, _returned(task, "concurrency_key", args, kwargs))
    return Extras(
        run_after=None if options.debounce is None else moment_of(options.debounce),
        expires_at=None if options.expires is None else moment_of(options.expires),
        **_kept(options.result_ttl, options.keep),
        tags=_tagged(options.tags),
        parent_id=parent_id,
        unique_key=_unique_key(task, args, kwargs) if options.is_unique else None,
        unique_running=options.unique == "running",
        lane=lane,
        lane_limit=limit,
        lane_interval=interval,
        lane_burst=burst,
        fair_key=None if options.fair_by is None else _fair_key(task, args, kwargs),
        lane_discards=options.on_limit == "discard",
        is_sensitive=options.sensitive,
        unique_rule=options.unique_rule,
    )


def lane_of(task_name: str, key: object) -> str:
    """Return the concurrency group of a key."""
    return f"{task_name}:{key}"[:MAX_LANE]


def _returned(task: Any, option: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what an option that is a function of the arguments returns for a call.

    It is called as the task is or, if it does not take that, with all arguments by name, so that
    `lambda order_id, **kwargs: order_id` always fits. Raises TypeError if neither fits.
    """
    function = getattr(task.options, option)
    taken = _taken_by(function)
    try:
        try:
            taken.bind(*args, **kwargs)
        except TypeError:
            args, kwargs = (), _by_name(task.spelling(args, kwargs).bind(*args, **kwargs))
            taken.bind(**kwargs)
    except TypeError as error:
        raise TypeError(f"{task.name}: {option} is called with the arguments of the task: {error}") from error
    return function(*args, **kwargs)


@functools.lru_cache(maxsize=1000)
def _taken_by(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function; of one that has none, such as `str`, one that takes everything."""
    try:
        return inspect.signature(function)
    except ValueError:
        return inspect.signature(lambda *args, **kwargs: None)


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Return the arguments by name; those of `**kwargs` by their own names."""
    kinds = {name: parameter.kind for name, parameter in bound.signature.parameters.items()}
    named = {
        name: value
        for name, value in bound.arguments.items()
        if kinds[name] is not inspect.Parameter.VAR_KEYWORD
    }
    return named | bound.kwargs


def _limit(task: Any, option: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return `max_concurrency` or `rate_limit` of a call. Raises ValueError if it is invalid."""
    value = getattr(task.options, option)
    if not callable(value):
        return value
    value = _returned(task, option, args, kwargs)
    if fault := fault_of_limit(option, value):
        raise ValueError(f"{task.name}: {option} returned {fault}.")
    return value


def _kept(result_ttl: float | None, keep: float | timedelta | None) -> dict[str, Any]:
    """Return how long to keep the row, and whether with its result, by the columns of Extras."""
    span = current().KEEP if keep is None else keep
    seconds = span.total_seconds() if isinstance(span, timedelta) else span or 0
    longest = max(seconds, result_ttl or 0)
    is_kept = result_ttl is not None or seconds > 0
    return {"result_ttl": longest if is_kept else None, "keeps_result": result_ttl is not None or not is_kept}


def _tagged(tags: Sequence[str]) -> str:
    return f" {' '.join(dict.fromkeys(tags))} " if tags else ""


def _fair_key(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return the key of a call. The tasks of each key take turns; None: it waits in line.

    Raises ValueError if the key is too long.
    """
    value = _returned(task, "fair_by", args, kwargs)
    key = None if value is None else str(value)
    if key and len(key) > MAX_FAIR_KEY:
        raise ValueError(
            f"{task.name}: fair_by returned {len(key)} characters, and {MAX_FAIR_KEY} is the most. "
            "Return an id or a hash."
        )
    return key


def _unique_key(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the key that identical calls share, whether arguments are positional, named or defaults."""
    if callable(task.options.unique):
        same = [task.name, "key", _returned(task, "unique", args, kwargs)]
    else:
        signature = task.spelling(args, kwargs)
        defaults = {p.name: simplified(p.default) for p in signature.parameters.values()}
        arguments = {name: default for name, default in defaults.items() if _is_json(default)}
        same = [task.name, arguments | signature.bind(*args, **kwargs).arguments]
    text = json.dumps(same, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_json(default: Any) -> bool:
    try:
        json.dumps(default, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def moment_of(when: float | timedelta | datetime, name: str = "countdown") -> str:
    """Return a time as the database has it, from a datetime or seconds from now. `name`: for errors.

    A time that is out of range becomes the first or last one. Raises TypeError, or ValueError for NaN or a
    naive datetime.
    """
    if isinstance(when, datetime):
        return as_text(when)
    return later(now(), seconds_of(when, name, MOMENT))


def run_after(countdown: float | timedelta | None, eta: datetime | None) -> str | None:
    """Return when a call is due; None: now. Raises TypeError or ValueError."""
    if eta is not None:
        if countdown is not None:
            raise ValueError("Give countdown or eta, not both.")
        if not isinstance(eta, datetime):
            raise TypeError(f"eta={eta!r} must be an aware datetime; countdown is for seconds")
        return as_text(eta)
    if countdown is None or seconds_of(countdown, "countdown") <= 0:
        return None
    return moment_of(countdown)


def with_options(
    task: Any,
    extras: Extras | None,
    countdown: float | timedelta | None,
    eta: datetime | None,
    expires: float | timedelta | datetime | None,
    result_ttl: float | None,
    keep: float | timedelta | None,
    tags: Sequence[str] | None,
) -> Extras | None:
    """Return the extras of a call with the options of apply_async(). Raises TypeError or ValueError."""
    changes: dict[str, Any] = {}
    due = run_after(countdown, eta)
    if due or (countdown is not None and extras):
        changes["run_after"] = due
    if expires is not None:
        changes["expires_at"] = moment_of(expires, "expires")
    if result_ttl is not None and not is_seconds(result_ttl):
        kind = ValueError if isinstance(result_ttl, (int, float)) else TypeError
        raise kind(f"result_ttl={result_ttl!r} must be a number of seconds, from 0 to {MOST:,.0f}")
    if keep is not None and not is_span(keep):
        kind = ValueError if isinstance(keep, (int, float, timedelta)) else TypeError
        raise kind(f"keep={keep!r} must be a number of seconds, from 0 to {MOST:,.0f}, or a timedelta")
    if result_ttl is not None or keep is not None:
        own = task.options
        changes |= _kept(
            own.result_ttl if result_ttl is None else result_ttl, own.keep if keep is None else keep
        )
    if tags is not None:
        if not are_tags(tags) or not are_tags(tags := [*task.options.tags, *tags]):
            raise ValueError(f"tags={shown(tags)} must be a list of {TAGS}")
        changes["tags"] = _tagged(tags)
    return (extras or Extras())._replace(**changes) if changes else extras
