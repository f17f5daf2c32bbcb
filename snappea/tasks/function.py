"""`@task`, the TaskFunction that it returns, and the registry, through which a row's name leads to code."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from types import MethodType, NoneType
from typing import Any, Concatenate, Generic, Literal, Never, ParamSpec, Protocol, TypeVar, cast, overload

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.db import DEFAULT_DB_ALIAS, transaction
from django.utils.module_loading import import_string

from ..conf import current, hook, shown, soft_time_limit_of
from ..errors import TaskDefinitionError, refuse_event_loop, running_loop
from ..models import Task as Row
from ..queue.clock import now
from ..queue.records import Call, Claim
from ..signals import task_enqueued, tell
from . import calls, context, engine
from .arguments import encode, simplified
from .bound import BoundTask
from .calls import FINISHED, call_many
from .engine import InBatch
from .options import Options, is_priority
from .results import AsyncResult

P = ParamSpec("P")
Opt = ParamSpec("Opt")
R = TypeVar("R")
Bind = TypeVar("Bind", covariant=True)
_NO_CONTEXT = nullcontext()


class TaskFunction(BoundTask, Generic[P, R]):
    """A function that can be enqueued: what `@task` returns. Calling it runs the plain function."""

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        functools.update_wrapper(self, function)
        #: What runs: the function; with `bind`, a method of this task.
        self.function = cast(Callable[P, R], MethodType(function, self) if options.bind else function)
        self.options = options
        self.name = options.name
        #: What the arguments of a call are checked against.
        self.signature = calls.signature_of(function)
        self._inside = inspect.signature(function)  # of the function inside decorators
        if options.bind:
            calls.require_self(self.signature, self.name)
            self.signature, self._inside = map(calls.without_context, (self.signature, self._inside))
        #: How many positional arguments fit without a closer look.
        self.arity = calls.plain_arity(self.signature)
        self._takes_using = "using" in {**self.signature.parameters, **self._inside.parameters}
        #: Whether it is an `async def` function.
        self.is_coroutine = iscoroutinefunction(function)
        #: Whether it runs on the event loop, not in a thread.
        self.is_async = self.is_coroutine and not options.is_isolated
        #: Whether it runs in a process of its own.
        self.is_isolated = options.is_isolated
        # integers: sqlite3 binds them faster than booleans
        self._flags = int(options.acks_late), int(self.is_async)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __reduce__(self) -> str:
        """Pickle it by name, like a function."""
        return self.__qualname__

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, without a queue."""
        return self.function(*args, **kwargs)

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Enqueue a call with these arguments. It is committed when this returns.

        >>> result = send_mail.delay(42)

        Raises TypeError if the arguments do not fit the function or are not strict JSON, ArgumentsTooLarge,
        UnknownQueue, or EnqueueError; on an event loop, SynchronousOnlyOperation. In each case nothing was
        written.
        """
        call = self.call(args, kwargs)
        if running_loop() is not None:
            refuse_event_loop(self.__name__, self.name)
        return engine.choose().submit(call, self)

    async def adelay(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Enqueue a call like `delay()`, from asynchronous code: `await send_mail.adelay(42)`."""
        return await sync_to_async(functools.partial(self.delay, *args, **kwargs))()

    def delay_many(self, calls: Iterable[tuple[Any, ...]], *, batch: InBatch = None) -> list[AsyncResult]:
        """Enqueue one call per tuple of positional arguments, in one transaction; as members of a `batch`.

        >>> send_mail.delay_many((user.pk,) for user in users)

        Raises the same errors as `delay()`; in that case none of the calls is enqueued.
        """
        refuse_event_loop(self.__name__, self.name)
        return engine.chosen(batch).submit_many(call_many(self, calls), self)

    def broadcast(self, /, *args: P.args, **kwargs: P.kwargs) -> list[AsyncResult]:
        """Enqueue one call for each running Foreman, and return their results.

        Use it for what each Foreman process holds itself, such as a cache in memory. On SQLite there is one
        Foreman, so this is the same as `delay()`. Raises the same errors as `delay()`, TypeError if the task
        has limits that could keep a call from running, and NotImplementedError if Celery is the engine.
        """
        refuse_event_loop(self.__name__, self.name)
        options = self.options
        if options.is_unique or options.is_limited:
            raise TypeError(
                f"{self.name} cannot be broadcast: with unique, max_concurrency or rate_limit it might not "
                "run on every Foreman. Declare a task without these options for it."
            )
        return engine.choose().broadcast(self.call(args, kwargs), self)

    @overload
    def delay_on_commit(self, /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def delay_on_commit(self, /, *args: Any, using: str, **kwargs: Any) -> None: ...
    def delay_on_commit(self, /, *args: Any, **kwargs: Any) -> None:
        """Enqueue a call when the surrounding transaction commits, or immediately if there is none.

        `using`: the alias of the transaction's database, "default" by default. If the task itself has an
        argument named `using`, it is passed to the task. After a rollback nothing is enqueued. The arguments
        are checked immediately; raises the same errors as `delay()`.

        >>> send_mail.delay_on_commit(user.pk)
        """
        using = DEFAULT_DB_ALIAS if self._takes_using else kwargs.pop("using", DEFAULT_DB_ALIAS)
        if self.delay != MethodType(_DELAY, self):  # a test has replaced it with a mock
            transaction.on_commit(functools.partial(self.delay, *args, **kwargs), using=using)
            return
        refuse_event_loop(self.__name__, self.name)
        call = self.call(args, kwargs)
        engine.choose().submit_on_commit(call, self, using)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        countdown: float | timedelta | None = None,
        eta: datetime | None = None,
        expires: float | timedelta | datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        result_ttl: float | None = None,
        keep: float | timedelta | None = None,
        tags: Sequence[str] | None = None,
        batch: InBatch = None,
        ignore_result: bool | None = None,
        add_to_parent: bool | None = None,
        **unknown: Never,
    ) -> AsyncResult:
        """Enqueue a call with options that override the task's.

        `countdown` (seconds or a timedelta) or `eta` (an aware datetime): when the call may start. `expires`
        (seconds, a timedelta or an aware datetime): when to delete it if it has not started. `priority`: from
        -100 to 100. `result_ttl`: how long to keep its result, in seconds. `keep` (seconds or a timedelta):
        how long to keep its row. `tags`: tags to add to the task's. `batch`: what it joins. `ignore_result`,
        `add_to_parent`: no effect. Raises as `delay()` does, TypeError or ValueError for invalid options.

        >>> send_mail.apply_async((42,), countdown=60, priority=10)
        """
        calls.require_known(unknown, self)
        if not isinstance(args, (tuple, list, NoneType)):
            raise TypeError(f"{self.name}: args={args!r} must be a tuple or a list.")
        if not isinstance(kwargs, (Mapping, NoneType)):
            raise TypeError(f"{self.name}: kwargs={kwargs!r} must be a dict.")
        call = self.call(tuple(args or ()), dict(kwargs or {}), queue)
        if priority is not None and not is_priority(priority):
            raise ValueError(f"{self.name}: priority={shown(priority)} must be from -100 to 100.")
        from .extras import with_options  # delay() of a task without options does not need it

        try:
            extras = with_options(self, call.extras, countdown, eta, expires, result_ttl, keep, tags)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name}: {error}") from None
        call = call._replace(extras=extras, priority=call.priority if priority is None else priority)
        refuse_event_loop(self.__name__, self.name)
        return engine.chosen(batch).submit(call, self)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], queue: str | None = None) -> Call:
        """Check the arguments and encode them. `queue` overrides the task's. Raises as `delay()` does."""
        if kwargs or self.arity is None or len(args) not in self.arity:
            self.require_fit(args, kwargs)
        return self.encoded(args, kwargs, queue)

    def require_fit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError if the arguments do not fit the function."""
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None

    def spelling(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.Signature:
        """Return the signature that names the arguments: that inside the decorators, if they fit it."""
        try:
            self._inside.bind(*args, **kwargs)
            return self._inside
        except TypeError:
            return self.signature

    def encoded(self, args: tuple[Any, ...], kwargs: dict[str, Any], queue: str | None = None) -> Call:
        """Return the call like `call()`, without checking the arguments against the signature."""
        options, configured = self.options, current()
        if configured.JSON_ENCODER is not None:
            args, kwargs = simplified(args), simplified(kwargs)
        encoded = encode(args, self.name)
        added = hook("HOOK_ADD_TASK_KWARGS")
        stored = {**kwargs, **added()} if added else kwargs
        named = encode(stored, self.name) if stored else "{}"
        limit = configured.MAX_ARGUMENT_BYTES
        if (len(encoded) + len(named)) * 4 > limit:  # a character takes at most 4 bytes
            calls.require_small(self.name, encoded, named, limit)
        if queue is not None or configured.QUEUES is not None:
            calls.require_queue(options.queue if queue is None else queue, self.name)
        parent = context.parent_id()
        extras = None
        if not options.is_plain or parent is not None or configured.KEEP:
            from .extras import extras_of

            extras = extras_of(self, args, kwargs, parent)
        return Call(self.name, encoded, named, queue or options.queue, options.priority, *self._flags, extras)

    def accepted(self, call_id: Any, is_new: bool) -> AsyncResult:
        """Return the result of a call that the engine accepted; send task_enqueued if it is new."""
        if is_new and task_enqueued.receivers:
            tell(task_enqueued, self, id=call_id)
        return AsyncResult(call_id)

    def run_eagerly(self, call: Call) -> AsyncResult:
        """Run a call instead of enqueueing it."""
        tell(task_enqueued, self, id=0)
        return AsyncResult(None, self.run_now(call))

    def run_now(self, call: Call) -> Any:
        """Run a call as a worker would, and return its result. Raises what the task raises."""
        # from JSON, so that a test sees the arguments as a worker would
        claim = Claim(0, 0, 0, call.task_name, call.args, call.kwargs, call.queue, enqueued_at=now())
        return import_string("snappea.workers.execute.run_eagerly")(self, claim)

    def run(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Run the function, a coroutine function in an event loop of its own.

        Raises UnfinishedResult if it returns work that has not run, such as a coroutine.
        """
        if (enter := hook("HOOK_RUN_TASK_CONTEXT")) is None:
            return self._run(args, kwargs)  # a nullcontext() would cost two calls
        with enter(kwargs):
            return self._run(args, kwargs)

    def _run(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        function: Any = self.function
        if self.is_coroutine:
            result = async_to_sync(functools.partial(function, *args, **kwargs))()
        else:
            result = function(*args, **kwargs)
        if type(result) not in FINISHED:
            calls.require_finished(result, self.name)
        return result

    async def run_on_loop(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Run the coroutine function in the running event loop."""
        function: Any = self.function
        enter = hook("HOOK_RUN_TASK_CONTEXT")
        async with calls.entered(enter(kwargs)) if enter else _NO_CONTEXT:
            result = await function(*args, **kwargs)
            if type(result) not in FINISHED:
                calls.require_finished(result, self.name)
            return result

    def soft_time_limit(self, queue: str) -> float | None:
        """Return the soft time limit of a call in this queue, in seconds."""
        limit = self.options.soft_time_limit
        return soft_time_limit_of(queue) if limit is None else limit


#: What `delay` is unless a test has replaced it with a mock.
_DELAY = TaskFunction.delay


# the registry

registry: dict[str, TaskFunction[..., Any]] = {}
#: Called with each task that is declared from now on.
observers: list[Callable[[TaskFunction[..., Any]], object]] = []


class _Wrap(Protocol[Bind]):
    """@task(...) for type checkers. `Bind` is the option; with `**options` it is Any, and taken as False."""

    @overload
    def __call__(self: "_Wrap[Literal[False]]", function: Callable[P, R], /) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> TaskFunction[P, R]: ...


class _Decorator(Protocol[Opt]):
    """@task for type checkers: bare, or with the arguments of `Options`, of which none is positional."""

    # mypy does not know that no function is True
    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, bind: Literal[True], *_: Opt.args, **options: Opt.kwargs) -> _Wrap[Literal[True]]: ...
    @overload
    def __call__(self, *_: Opt.args, **options: Opt.kwargs) -> _Wrap[Any]: ...


def _typed_by(options: Callable[Opt, Options]) -> Callable[[Callable[..., Any]], _Decorator[Opt]]:
    return lambda function: cast(_Decorator[Opt], function)


@_typed_by(Options)
def task(
    function: Callable[..., Any] | None = None, /, *, retry_kwargs: Any = None, **options: Any
) -> Callable[..., Any]:
    """Turn a module-level function into a task. `options`: the fields of `Options`.

    Returns a TaskFunction, or, if called with options, a decorator. Raises TaskDefinitionError if the name is
    taken, if the Foreman could not find the function by its name, or if an option is invalid.

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
                f"@task takes a function, not {function!r}. Write a function that calls it."
            )
        made = TaskFunction(function, Options.of(options.get("name") or _name_of(function), options))
        register(made)
        return made

    return decorate if function is None else decorate(function)


#: Celery's name for `task`.
shared_task = task


def _name_of(function: Callable[..., Any]) -> str:
    if "." in function.__qualname__:
        raise TaskDefinitionError(
            f"{function.__module__}.{function.__qualname__} is not at the top level of its module, so the "
            "Foreman cannot find it. Move it there, or give it a name of its own: @task(name=...)."
        )
    if function.__module__ == "__main__":
        raise TaskDefinitionError(
            f"{function.__qualname__}() is defined in a script, so the Foreman cannot find it. "
            "Move it to tasks.py of an installed app."
        )
    return f"{function.__module__}.{function.__qualname__}"


def register(made: TaskFunction[..., Any]) -> None:
    """Register a task under its name and aliases. Raises TaskDefinitionError if one of them is taken."""
    names = (made.name, *made.options.aliases)
    for name in names:
        other = registry.get(name)
        if other is not None and _place(other) != _place(made):  # the same place: a reload
            raise TaskDefinitionError(
                f"Two tasks are named {name!r}: at {_place(other)} and at {_place(made)}. "
                "Rename one, or give it a name of its own: @task(name=...)."
            )
    for name in names:
        registry[name] = made
    for observer in observers:
        observer(made)


def _place(made: TaskFunction[..., Any]) -> str:
    code = inspect.unwrap(made.function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def declared() -> list[TaskFunction[..., Any]]:
    """Return all tasks, without their aliases."""
    return [task for name, task in registry.items() if name == task.name]


def is_sensitive(call: Claim | Row, task: TaskFunction[..., Any] | None) -> bool:
    """Tell whether to hide a call's arguments: its row says so, or its task does by now."""
    return call.is_sensitive or (task is not None and task.options.sensitive)
