"""@task, and the registry of what it made: the only place where a name leads to code."""

import inspect
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from ..errors import TaskDefinitionError
from ..models import Task as Row
from ..queue.records import Claim
from .engine import Signature as Signature
from .function import TaskFunction as TaskFunction
from .options import Options

P = ParamSpec("P")
Opts = ParamSpec("Opts")
R = TypeVar("R")

registry: dict[str, TaskFunction[..., Any]] = {}
#: Called with each task that is made from now on.
observers: list[Callable[[TaskFunction[..., Any]], object]] = []


class _Decorator(Protocol[Opts]):
    """@task for type checkers: bare, or with the arguments that `Options` takes."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # no option is positional
        self, function: Callable[P, R], /
    ) -> TaskFunction[P, R]: ...
    @overload
    def __call__(
        self, *_: Opts.args, **options: Opts.kwargs
    ) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...


def _typed_by(
    options: Callable[Opts, Options],
) -> Callable[[Callable[..., Any]], _Decorator[Opts]]:
    return lambda function: cast(_Decorator[Opts], function)


@_typed_by(Options)
def task(
    function: Callable[..., Any] | None = None, /, *, retry_kwargs: Any = None, **options: Any
) -> Callable[..., Any]:
    """Make a function of a module a task. The options are those of `snappea.tasks.options.Options`.

    Raises TaskDefinitionError, at import, if the name is taken, the function cannot be found by name,
    or an option makes no sense.

    >>> @task
    ... def send_mail(user_id: int) -> None: ...
    >>> @task(acks_late=True, autoretry_for=(OSError,), retry_backoff=True)
    ... async def refresh(url: str) -> None: ...
    """
    if not isinstance(retry_kwargs, (Mapping, NoneType)):
        raise TaskDefinitionError(f"retry_kwargs={retry_kwargs!r} must be a dict.")
    theirs = {"max_retries": "max_retries", "countdown": "default_retry_delay"}
    options |= {theirs.get(key, f"retry_kwargs: {key}"): value for key, value in (retry_kwargs or {}).items()}

    def decorate(function: Callable[..., Any]) -> TaskFunction[..., Any]:
        if not inspect.isfunction(function):
            raise TaskDefinitionError(
                f"@task is for functions; {function!r} is none. Write a function that calls it."
            )
        name = options.get("name") or _name_of(function)
        made = TaskFunction(function, Options.of(name, options))
        register(made)
        return made

    return decorate if function is None else decorate(function)


#: Celery's name for it.
shared_task = task


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


def register(made: TaskFunction[..., Any]) -> None:
    """Enter a task under its names. Raises TaskDefinitionError if one of them is another's."""
    names = (made.name, *made.options.aliases)
    for name in names:
        other = registry.get(name)
        if other is not None and _place(other) != _place(made):  # the same place: the module was reloaded
            raise TaskDefinitionError(
                f"Two tasks are named {name!r}: at {_place(other)} and at {_place(made)}. "
                "Rename one, or give it a name of its own: @task(name=...)."
            )
    for name in names:
        registry[name] = made
    for tell in observers:
        tell(made)


def _place(made: TaskFunction[..., Any]) -> str:
    code = inspect.unwrap(made.function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def declared() -> list[TaskFunction[..., Any]]:
    """Return all tasks, each once: an alias is none of its own."""
    return [task for name, task in registry.items() if name == task.name]


def is_sensitive(call: Claim | Row, task: TaskFunction[..., Any] | None) -> bool:
    """Tell whether what a call was given is to be hidden: its row says so, or by now its task does."""
    return call.is_sensitive or (task is not None and task.options.sensitive)
