"""A task's function and its calls, and their checks."""

import copy
import inspect
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
from contextlib import AsyncContextDecorator, ContextDecorator, asynccontextmanager, nullcontext
from itertools import starmap
from types import CoroutineType, FunctionType
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.utils.module_loading import import_string

from ..conf import current, declared_queues, hook
from ..errors import ArgumentsTooLarge, TaskDefinitionError, UnfinishedResult, UnknownQueue
from ..queue.records import Alike, Call
from .arguments import encode
from .options import is_queue
from .results import AsyncResult

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


def call_many(task: Any, many: Iterable[Any]) -> Sequence[Call]:
    """Return a call for each tuple of positional arguments. Raises as the task's `call()` does."""
    rows = list(many)
    for args in rows:
        if not isinstance(args, (tuple, list)):
            raise TypeError(f"{task.name}.delay_many takes tuples of positional arguments, not {args!r}.")
    made = [task.call(tuple(args), {}) for args in rows[:1]]
    is_alike = made and not (made[0].extras or current().JSON_ENCODER or hook("HOOK_ADD_TASK_KWARGS"))
    if not is_alike:
        return made + [task.call(tuple(args), {}) for args in rows[1:]]
    name, arity, texts = task.name, task.arity or (), []
    at_most = current().MAX_ARGUMENT_BYTES // 4 - len(made[0].kwargs)  # a character takes at most 4 bytes
    for args in rows:
        text = encode(tuple(args), name) if len(args) in arity else None
        if text is None or len(text) > at_most:
            text = task.call(tuple(args), {}).args  # checks it more closely
        texts.append(text)
    return Alike(made[0], texts)


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
        #: The rest of its chain. With each call: whether it takes the result of the one before.
        self.followers: tuple[tuple[Signature, bool], ...] = ()

    def set(self, **options: Any) -> "Signature":
        """Set options of `apply_async()`, and return self. Raises TypeError for an unknown option."""
        require_known(options, self.task)
        self.options = {**self.options, **options}
        return self

    def then(self, other: Any, *, result: bool = False) -> "Signature":
        """Return a chain: when this call has succeeded, `other` is enqueued, a task or a call of it.

        `result`: pass what this call (of a chain, the last one) returns, as the first argument, except to an
        immutable one. Options of a chain are those of its first call. Raises TypeError.

        >>> fetch.s(url).then(parse.s(), result=True).then(report).delay()
        """
        following = other.s() if hasattr(other, "s") else other
        if not isinstance(following, Signature):
            raise TypeError(f"{other!r} cannot follow a call: give a task, or a call such as report.s(42).")
        takes_result = result and not following.immutable
        options = following.task.options
        if takes_result and options.is_unique and not callable(options.unique):
            raise TypeError(
                f"{options.name} is unique by its arguments, and one of them would be a result, which is not "
                "known yet. Let unique be a function of the other arguments."
            )
        chain, last = copy.copy(self), copy.copy(following)
        last.followers = ()
        chain.followers = (*self.followers, (last, takes_result), *following.followers)
        return chain

    def delay(self, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Enqueue it. These arguments come before its own. Raises the same errors as the task's `delay()`."""
        return self.apply_async(args, kwargs)

    def apply(self) -> Any:
        """Run it here and now, as the task's `apply()` does. Returns the result of a chain's last call."""
        result = self.task.apply(self.args, self.kwargs, **self.options)
        for call, takes_result in self.followers:
            if result.failed():
                break
            added = (result.get(),) if takes_result else ()
            result = call.task.apply((*added, *call.args), call.kwargs, **call.options)
        return result

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """Enqueue it. These arguments come before its own, and these options override its own.

        Returns the result of the first call of a chain.
        """
        if self.immutable:
            args, kwargs = (), None
        args, kwargs = (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}
        options = {**self.options, **options}
        if self.followers and options.get("batch") is not None:
            raise TypeError("A chain does not take `batch`: enqueue it in a block, `with batch:`.")
        chained = import_string("snappea.tasks.batches.chained") if self.followers else nullcontext
        with chained(self.followers):
            result: AsyncResult = self.task.apply_async(args, kwargs, **options)
        return result
