"""A task's function and its calls: their checks, and what a call's options write on its row."""

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import Future
from contextlib import AsyncContextDecorator, ContextDecorator, asynccontextmanager
from datetime import datetime, timedelta
from itertools import starmap
from types import CoroutineType, FunctionType
from typing import Any

from asgiref.sync import iscoroutinefunction

from ..conf import current, declared_queues, is_span, shown
from ..errors import ArgumentsTooLarge, TaskDefinitionError, UnfinishedResult, UnknownQueue
from ..queue.clock import as_text, later, now, seconds_of
from ..queue.records import Extras
from .arguments import simplified
from .engine import AsyncResult
from .options import MOST, TAGS, are_tags, is_queue, is_seconds, limit_of, rate_of

#: What a time may be, besides a number of seconds from now.
MOMENT = ", a timedelta or an aware datetime"
MAX_LANE, MAX_FAIR_KEY = 600, 200  # characters
_RETRY = ("exc", "countdown", "eta", "max_retries")
Params = inspect.Parameter
#: The code of decorators that pass on all arguments: context managers such as transaction.atomic().
_DECORATORS: tuple[Any, ...] = ContextDecorator(), AsyncContextDecorator()
_PASSES_ON = {decorator(print).__code__ for decorator in _DECORATORS}
#: Results that mean that work has not run or not ended.
_UNFINISHED = (Generator, AsyncGenerator, Awaitable, Future, map, filter, starmap)
#: Types of results that need no closer look.
FINISHED = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


# the function


def looked_through(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside decorators that are known to pass on all arguments."""
    while getattr(function, "__code__", None) in _PASSES_ON:
        function = function.__wrapped__  # type: ignore[attr-defined]  # functools.wraps() set it
    return function


def fault_of(function: Callable[..., Any]) -> tuple[str, str]:
    """Return why calling a function would run none of it, and the cure; empty strings if it would run."""
    inside = looked_through(function)
    if inspect.isgeneratorfunction(inside) or inspect.isasyncgenfunction(inside):
        return "it has a `yield`", "Remove the `yield`, or move it into another function and loop over that."
    if iscoroutinefunction(inside) and not iscoroutinefunction(function):
        what = "it is `async def` behind a synchronous decorator, which does not await it"
        return what, "Use the decorator as a context manager, inside the function."
    return "", ""


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of the outermost decorator, which may add, drop or change arguments.

    functools.wraps() would show that of the function inside. Decorators known to pass all on are skipped.
    """
    function = looked_through(function)
    inside = getattr(function, "__wrapped__", None)
    told = getattr(function, "__signature__", None)
    if isinstance(function, FunctionType) and told and told is getattr(inside, "__signature__", None):
        # functools.wraps() copied it
        bare = FunctionType(function.__code__, {}, None, function.__defaults__, function.__closure__)
        bare.__kwdefaults__ = function.__kwdefaults__
        function = bare
    return inspect.signature(function, follow_wrapped=False)


def plain_arity(signature: inspect.Signature) -> range | None:
    """Return how many positional arguments fit; None if only bind() can tell."""
    parameters = signature.parameters.values()
    if any(p.kind is Params.KEYWORD_ONLY and p.default is Params.empty for p in parameters):
        return None
    positional = [p for p in parameters if p.kind in (Params.POSITIONAL_ONLY, Params.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is Params.empty for p in positional)
    takes_any = any(p.kind is Params.VAR_POSITIONAL for p in parameters)
    return range(required, sys.maxsize if takes_any else len(positional) + 1)


def without_context(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature without its first parameter, which django.tasks fills in."""
    first, *parameters = signature.parameters.values()
    return signature if first.kind is Params.VAR_POSITIONAL else signature.replace(parameters=parameters)


def require_self(signature: inspect.Signature, name: str) -> None:
    """Raise TaskDefinitionError if a function with `bind=True` has no first parameter for its task."""
    first = next(iter(signature.parameters.values()), None)
    if first is None or first.kind in (Params.KEYWORD_ONLY, Params.VAR_KEYWORD):
        raise TaskDefinitionError(
            f"{name}: bind=True passes the task as the first argument. Add the parameter `self`."
        )


def require_finished(result: Any, name: str) -> None:
    """Raise UnfinishedResult if a task returned work that has not run, or not ended."""
    kind = type(result)
    if kind in FINISHED or not issubclass(kind, _UNFINISHED):
        return
    if issubclass(kind, CoroutineType):
        result.close()  # or Python warns that it was never awaited
    cure = "Loop over it in the task"
    if issubclass(kind, (Awaitable, Future)):
        cure = "Make the task `async def`, and await it there"
    if issubclass(kind, Future):
        cure = "Wait for its result() in the task"
    raise UnfinishedResult(
        f"{name} returned a {kind.__name__}: its work has not run or not ended, and nothing waits for it. "
        f"{cure}."
    )


@asynccontextmanager
async def entered(context: Any) -> AsyncIterator[None]:
    """Enter a context manager on the event loop: with `async with`, if it allows that."""
    if hasattr(context, "__aenter__"):
        async with context:
            yield
    else:
        with context:
            yield


# a call


def require_small(name: str, args: str, kwargs: str, limit: int) -> None:
    """Raise ArgumentsTooLarge if the encoded arguments take too many bytes."""
    size = len(args.encode()) + len(kwargs.encode())
    if size > limit:
        raise ArgumentsTooLarge(
            f"{name}(): the arguments take {size} bytes as JSON; MAX_ARGUMENT_BYTES is {limit}. Store them "
            "and pass the primary key."
        )


def require_queue(name: str, task_name: str) -> None:
    """Raise UnknownQueue if the queue does not exist."""
    declared = declared_queues()
    if not is_queue(name):
        raise UnknownQueue(f"{task_name}: queue={name!r} must be a string of 1 to 100 characters.")
    if declared is not None and name not in declared:
        raise UnknownQueue(
            f'{task_name}: there is no queue {name!r} in SNAPPEA["QUEUES"], only '
            f"{', '.join(declared)}. Add it there, or use one of these."
        )


def extras_of(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], parent_id: int | None) -> Extras:
    """Return the columns that a TaskFunction's options add to a call."""
    options = task.options
    lane = None
    limit = _limit(task, "max_concurrency", args, kwargs)
    interval, burst = rate_of(_limit(task, "rate_limit", args, kwargs))
    if options.is_limited:
        lane = options.name
        if options.concurrency_key is not None:
            lane = f"{lane}:{_returned(task, 'concurrency_key', args, kwargs)}"[:MAX_LANE]
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
        is_sensitive=options.sensitive,
        unique_rule=options.unique_rule,
    )


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
    named = {name: value for name, value in bound.arguments.items() if kinds[name] is not Params.VAR_KEYWORD}
    return named | bound.kwargs


def _limit(task: Any, option: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return `max_concurrency` or `rate_limit` of a call."""
    value = getattr(task.options, option)
    return limit_of(task.options, option, _returned(task, option, args, kwargs)) if callable(value) else value


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


def require_known(options: Iterable[str], task: Any, method: str = "apply_async") -> None:
    """Raise TypeError for an option that a method does not have: apply_async(), apply() or retry()."""
    known = _RETRY if method == "retry" else type(task).apply_async.__kwdefaults__
    for key in options:
        if key not in known:
            from . import foreign  # needed for this error only

            theirs = foreign.RETRY_OPTIONS if method == "retry" else foreign.CALL_OPTIONS
            hint = foreign.instead(key, theirs, known)
            raise TypeError(f"{task.name}: {method}() has no option {key!r}; {hint}")


class Signature:
    """A call that is not enqueued yet. `TaskFunction.s()` returns one.

    An immutable one, from `si()`, ignores arguments that are added when it is enqueued.

    >>> send_mail.s(42).set(countdown=60).delay()
    """

    def __init__(
        self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], immutable: bool = False
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.immutable = immutable
        self.options: dict[str, Any] = {}

    def set(self, **options: Any) -> "Signature":
        """Set options of `apply_async()`, and return self. Raises TypeError for an unknown option."""
        require_known(options, self.task)
        self.options |= options
        return self

    def delay(self, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Enqueue it. These arguments come before its own. Raises the same errors as the task's `delay()`."""
        return self.apply_async(args, kwargs)

    def apply(self) -> AsyncResult:
        """Run it here and now, as the task's `apply()` does."""
        result: AsyncResult = self.task.apply(self.args, self.kwargs, **self.options)
        return result

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """Enqueue it. These arguments come before its own, and these options override its own."""
        if self.immutable:
            args, kwargs = (), None
        result: AsyncResult = self.task.apply_async(
            (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, **{**self.options, **options}
        )
        return result
