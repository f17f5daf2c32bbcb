"""@task, and the registry of what it made: the only place where a name leads to code."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from .errors import TaskDefinitionError, UnknownTask
from .function import Signature as Signature
from .function import TaskFunction as TaskFunction
from .models import Task as Row
from .modules import load_module_of
from .options import Options, TaskOptions
from .records import Claim

P = ParamSpec("P")
R = TypeVar("R")

registry: dict[str, TaskFunction[..., Any]] = {}
#: Called with each task that is made from now on.
heralds: list[Callable[[TaskFunction[..., Any]], object]] = []


@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...
@overload
def task(
    *, retry_kwargs: Mapping[str, Any] | None = None, **options: Unpack[TaskOptions]
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    retry_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Make a function of a module a task. The options are those of `snappea.options.Options`.

    `retry_kwargs`: django-taskq's way to write `max_retries` and, as `countdown`, `default_retry_delay`.

    Raises TaskDefinitionError, at import, if the name is taken, the function cannot be found by name,
    or an option makes no sense.

    >>> @task
    ... def send_mail(user_id: int) -> None: ...
    >>> @task(acks_late=True, autoretry_for=(OSError,), retry_backoff=True)
    ... async def refresh(url: str) -> None: ...
    """
    theirs = {"max_retries": "max_retries", "countdown": "default_retry_delay"}
    options |= {theirs.get(key, f"retry_kwargs: {key}"): value for key, value in (retry_kwargs or {}).items()}

    def decorate(function: Callable[..., Any]) -> TaskFunction[..., Any]:
        if not inspect.isfunction(function):
            raise TaskDefinitionError(f"@task is for functions; {function!r} is none.")
        made = TaskFunction(function, Options.of(options.get("name") or _name_of(function), options))
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
    for tell in heralds:
        tell(made)


def _place(made: TaskFunction[..., Any]) -> str:
    code = inspect.unwrap(made.function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def resolve(name: str) -> TaskFunction[..., Any]:
    """Return the task of a name: what @task made, or a django.tasks Task of our backend, and nothing else.

    A module that has not been imported yet is, if it lies inside an installed app.
    Raises UnknownTask.
    """
    if name not in registry:
        load_module_of(name)
    found = registry.get(name) or _of_django(name)
    if found is None:
        raise UnknownTask(
            f"Unknown task {name!r}: no @task of that name in an installed app. If it was renamed, give it "
            "the old name as well (aliases); if it is not deployed yet, requeue this task once it is."
        )
    return found


def _of_django(name: str) -> TaskFunction[..., Any] | None:
    """Return the django.tasks Task of a name, if it is one of a backend of ours."""
    if "snappea.backend" not in sys.modules:
        return None  # no Task could be one of its
    from .backend import function_of

    return function_of(name)


def task_of(claim: Claim) -> TaskFunction[..., Any]:
    """Return the task that a claim is of. Raises UnknownTask."""
    if claim.terms is None or (origin := claim.origin) is None:
        return resolve(claim.task_name)
    from .backend import function_of_claim

    return function_of_claim(claim, origin)


def find_task_of(claim: Claim) -> TaskFunction[..., Any] | None:
    """Return the task that a claim is of; None if there is none, or its module raised, whatever it raised."""
    try:
        return task_of(claim)
    except BaseException:
        return None


def declared() -> list[TaskFunction[..., Any]]:
    """Return all tasks, each once: an alias is none of its own."""
    return [task for name, task in registry.items() if name == task.name]


def is_sensitive(call: Claim | Row, task: TaskFunction[..., Any] | None) -> bool:
    """Tell whether what a call was given is to be hidden: its row says so, or by now its task does."""
    return call.is_sensitive or (task is not None and task.options.sensitive)


def find(name: str) -> TaskFunction[..., Any] | None:
    """Return the task of a name; None if there is none, or its module raised, whatever it raised."""
    try:
        return registry.get(name) or resolve(name)
    except BaseException:
        return None
