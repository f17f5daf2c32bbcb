"""@task, and what it makes of a function: something that can be called later.

A call is bound to the function's signature and encoded as strict JSON before anything is
written, so that what was accepted arrives, and arrives equal (but tuples arrive as lists).
"""

import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, ParamSpec, TypeVar, overload

from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from . import queue
from .arguments import encode
from .conf import current
from .errors import ArgumentsTooLarge, TaskDefinitionError, UnknownTask

P = ParamSpec("P")
R = TypeVar("R")
Params = inspect.Parameter
MOST_BYTES = 4  # of a character in UTF-8

logger = logging.getLogger("snappea.tasks")
registry: dict[str, "TaskFunction[..., Any]"] = {}


@dataclass(frozen=True)
class AsyncResult:
    """A call that was enqueued.

    `id` is the primary key of its row; None if it ran at once (TASK_ALWAYS_EAGER).
    """

    id: int | None


class TaskFunction(Generic[P, R]):
    """A function that can also be called later: what @task makes.

    Calling it runs it here and now, as if it were undecorated.
    """

    __name__: str
    __qualname__: str

    def __init__(
        self, function: Callable[P, R], name: str, queue: str, priority: int, acks_late: bool
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.queue = queue
        self.priority = priority
        self.acks_late = acks_late
        self.signature = inspect.signature(function)
        self._arity = _plain_arity(self.signature)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return self.function(*args, **kwargs)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Enqueue a call with these arguments; it is committed when this returns.

        Raises TypeError if the arguments do not fit the function or are not strict JSON,
        ArgumentsTooLarge, or EnqueueError; in each case nothing was written.
        """
        call = self.call(args, kwargs)
        if current().TASK_ALWAYS_EAGER:
            return self._run_now(call)
        if settings.DEBUG:
            _warn_of_open_transaction()
        return AsyncResult(queue.enqueue(call))

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Do as `delay()`, from asynchronous code."""
        return await sync_to_async(self.delay)(*args, **kwargs)

    def delay_many(self, calls: Iterable[tuple[Any, ...]]) -> list[AsyncResult]:
        """Enqueue one call for each tuple of positional arguments, all in one transaction.

        >>> send_mail.delay_many((user.pk,) for user in users)

        Raises as `delay()` does, and then enqueued none of them.
        """
        encoded = [self.call(_checked_tuple(args, self.name), {}) for args in calls]
        if current().TASK_ALWAYS_EAGER:
            return [self._run_now(call) for call in encoded]
        if settings.DEBUG:
            _warn_of_open_transaction()
        return [AsyncResult(task_id) for task_id in queue.enqueue_many(encoded)]

    @overload
    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def delay_on_commit(self, *args: Any, using: str, **kwargs: Any) -> None: ...
    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Enqueue a call once the surrounding transaction commits; at once if there is none.

        `using` is the alias of the database whose transaction is meant, "default" if not given
        (and it is the task's own argument if the task has one of that name). After a rollback
        nothing is enqueued. Raises as `delay()` does; the arguments are checked at once.
        """
        using = (
            DEFAULT_DB_ALIAS
            if "using" in self.signature.parameters
            else kwargs.pop("using", DEFAULT_DB_ALIAS)
        )
        call = self.call(args, kwargs)

        def enqueue() -> None:
            if current().TASK_ALWAYS_EAGER:
                self._run_now(call)
            else:
                queue.enqueue(call)

        transaction.on_commit(enqueue, using=using)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> queue.Call:
        """Check the arguments against the signature and encode them. Raises as `delay()` does."""
        if kwargs or self._arity is None or len(args) not in self._arity:
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}(): {error}") from None
        encoded = encode(args, self.name)
        named = encode(kwargs, self.name) if kwargs else "{}"
        limit = current().MAX_ARGUMENT_BYTES
        if (len(encoded) + len(named)) * MOST_BYTES > limit:
            size = len(encoded.encode()) + len(named.encode())
            if size > limit:
                raise ArgumentsTooLarge(
                    f"{self.name}(): the arguments take {size} bytes as JSON, more than MAX_ARGUMENT_BYTES "
                    f"({limit}). Store them, and pass the primary key."
                )
        return queue.Call(self.name, encoded, named, self.queue, self.priority, self.acks_late)

    def run(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Run the function to its end, in an event loop if it is asynchronous."""
        function: Callable[..., Any] = self.function
        if inspect.iscoroutinefunction(function):
            function = async_to_sync(function)
        return function(*args, **kwargs)

    def _run_now(self, call: queue.Call) -> AsyncResult:
        # what a worker would get, so that a test sees what the JSON makes of the arguments
        self.run(json.loads(call.args), json.loads(call.kwargs))
        return AsyncResult(None)


@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    *, name: str = "", queue: str = "default", priority: int = 0, acks_late: bool = False
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    queue: str = "default",
    priority: int = 0,
    acks_late: bool = False,
) -> Any:
    """Make a function of a module a task.

    `name`: what its rows are called; "module.function" if not given.
    `queue`: the label on its rows. `priority`: -100 to 100, higher first.
    `acks_late`: it may safely be repeated: if the Foreman dies in the middle it runs again.

    Raises TaskDefinitionError, at import, if the name is taken or the function cannot be found by name.

    >>> @task
    ... def send_mail(user_id: int) -> None: ...
    >>> @task(acks_late=True)
    ... async def refresh(url: str) -> None: ...
    """

    def decorate(function: Callable[..., Any]) -> TaskFunction[..., Any]:
        if not inspect.isfunction(function):
            raise TaskDefinitionError(f"@task is for functions; {function!r} is none.")
        made = TaskFunction(function, name or _name_of(function), queue, priority, acks_late)
        _check_options(made)
        _register(made)
        return made

    return decorate if function is None else decorate(function)


def _name_of(function: Callable[..., Any]) -> str:
    if "." in function.__qualname__:
        raise TaskDefinitionError(
            f"{function.__module__}.{function.__qualname__} is not at the top level of its module, where "
            "the Foreman could find it. Move it there, or give it a name of its own: @task(name=...)."
        )
    if function.__module__ == "__main__":
        raise TaskDefinitionError(
            f"{function.__qualname__}() is defined in a script, where the Foreman cannot find it. "
            "Move it to tasks.py of an installed app."
        )
    return f"{function.__module__}.{function.__qualname__}"


def _check_options(made: "TaskFunction[..., Any]") -> None:
    if len(made.name) > 255:
        raise TaskDefinitionError(f"{made.name}: the name of a task has at most 255 characters.")
    if not isinstance(made.queue, str) or not 0 < len(made.queue) <= 100:
        raise TaskDefinitionError(
            f"{made.name}: queue={made.queue!r} must be a string of 1 to 100 characters."
        )
    if type(made.priority) is not int or not -100 <= made.priority <= 100:
        raise TaskDefinitionError(f"{made.name}: priority={made.priority!r} must be from -100 to 100.")
    if not isinstance(made.acks_late, bool):
        raise TaskDefinitionError(f"{made.name}: acks_late={made.acks_late!r} must be True or False.")


def _register(made: "TaskFunction[..., Any]") -> None:
    other = registry.get(made.name)
    if other is not None and _place(other) != _place(made):  # the same place: the module was reloaded
        raise TaskDefinitionError(
            f"Two tasks are named {made.name!r}: at {_place(other)} and at {_place(made)}. "
            "Rename one, or give it a name of its own: @task(name=...)."
        )
    registry[made.name] = made


def _place(made: "TaskFunction[..., Any]") -> str:
    code = inspect.unwrap(made.function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def resolve(name: str) -> "TaskFunction[..., Any]":
    """Return the task of a name. Only the registry names code: nothing else is ever looked up.

    A module that has not been imported yet is, if it lies inside an installed app.
    Raises UnknownTask.
    """
    if name not in registry:
        module = name.rpartition(".")[0]
        if apps.get_containing_app_config(name) and module not in sys.modules:
            try:
                import_module(module)
            except Exception as error:
                raise UnknownTask(f"Unknown task {name!r}: importing {module} raised {error!r}.") from error
    try:
        return registry[name]
    except KeyError:
        raise UnknownTask(
            f"Unknown task {name!r}: no @task of that name in an installed app. If it was renamed or "
            "is not deployed yet, requeue this task once it is there."
        ) from None


# arguments


def _plain_arity(signature: inspect.Signature) -> range | None:
    """Return how many positional arguments fit, None if only bind() can tell."""
    parameters = signature.parameters.values()
    if any(p.kind not in (Params.POSITIONAL_ONLY, Params.POSITIONAL_OR_KEYWORD) for p in parameters):
        return None
    required = sum(p.default is Params.empty for p in parameters)
    return range(required, len(parameters) + 1)


def _checked_tuple(args: object, name: str) -> tuple[Any, ...]:
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"{name}.delay_many() takes tuples of positional arguments, not {args!r}.")
    return tuple(args)


# advice while developing

_warned: set[tuple[str, int]] = set()


def _warn_of_open_transaction() -> None:
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
