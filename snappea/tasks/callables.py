"""The function of a task: what it takes, whether calling it runs it, and whether it has ended."""

import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import AsyncContextDecorator, ContextDecorator
from itertools import starmap
from types import CoroutineType, FunctionType
from typing import Any

from asgiref.sync import iscoroutinefunction

from ..errors import UnfinishedResult

Params = inspect.Parameter
#: The code of decorators that pass on all arguments: those of context managers, as transaction.atomic().
_DECORATORS: tuple[Any, ...] = ContextDecorator(), AsyncContextDecorator()
_PASSES_ON = {decorator(print).__code__ for decorator in _DECORATORS}
#: What a function may return although nothing of it has run yet, or it has not ended.
_UNFINISHED = (Generator, AsyncGenerator, Awaitable, Future, map, filter, starmap)
#: What needs no closer look.
FINISHED = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


def looked_through(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside of decorators that are known to pass on all arguments."""
    while getattr(function, "__code__", None) in _PASSES_ON:
        function = function.__wrapped__  # type: ignore[attr-defined]
    return function


def fault_of(function: Callable[..., Any]) -> tuple[str, str]:
    """Say why calling a function would run nothing of it, and the cure; two empty texts if it would."""
    inside = looked_through(function)
    if inspect.isgeneratorfunction(inside) or inspect.isasyncgenfunction(inside):
        return (
            "it has a `yield`",
            "Take the `yield` out, or move it into another function and loop over that.",
        )
    if iscoroutinefunction(inside) and not iscoroutinefunction(function):
        what = "it is `async def` behind a synchronous decorator, which does not await it"
        return what, "Use the decorator as a context manager, inside the function."
    return "", ""


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return what a function takes: the outermost decorator, not what functools.wraps() says is inside.

    A decorator may add, drop or change arguments. Those known to pass all of them on are looked through.
    """
    function = looked_through(function)
    inside = getattr(function, "__wrapped__", None)
    told = getattr(function, "__signature__", None)
    if isinstance(function, FunctionType) and told and told is getattr(inside, "__signature__", None):
        # functools.wraps() has copied it
        bare = FunctionType(function.__code__, {}, None, function.__defaults__, function.__closure__)
        bare.__kwdefaults__ = function.__kwdefaults__
        function = bare
    return inspect.signature(function, follow_wrapped=False)


def plain_arity(signature: inspect.Signature) -> range | None:
    """Return how many positional arguments fit, None if only bind() can tell."""
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


def require_finished(result: Any, name: str) -> None:
    """Raise UnfinishedResult if what a task returned is work that nothing would do."""
    kind = type(result)
    if kind in FINISHED or not issubclass(kind, _UNFINISHED):
        return
    if issubclass(kind, CoroutineType):
        result.close()  # Python warns of one that is dropped
    cure = "loop over it in the task"
    if issubclass(kind, (Awaitable, Future)):
        cure = "make the task `async def`, and await it there"
    if issubclass(kind, Future):
        cure = "wait for its result() in the task"
    raise UnfinishedResult(
        f"{name} returned a {kind.__name__}: what that stands for has not run, or not ended, and nothing "
        f"waits for it. To have it done, {cure}."
    )
