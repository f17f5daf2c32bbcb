"""TaskFunction: what @task makes of a function, something that can be called later.

A call is bound to the function's signature and encoded as strict JSON before anything is
written, so that what was accepted arrives, and arrives equal (but tuples arrive as lists).
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from types import MethodType, NoneType
from typing import Any, Generic, Never, NoReturn, ParamSpec, TypeVar, overload

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.db import DEFAULT_DB_ALIAS, transaction
from django.utils.module_loading import import_string

from ..conf import current, hook, shown, soft_time_limit_of
from ..errors import refuse_event_loop, running_loop
from ..queue.clock import now
from ..queue.records import Call, Claim, Extras
from ..signals import task_enqueued, tell
from . import context, engine
from .arguments import encode, simplified
from .calls import (
    FINISHED,
    extras_of,
    plain_arity,
    require_finished,
    require_queue,
    require_small,
    signature_of,
    with_options,
)
from .engine import AsyncResult, Signature, require_known
from .options import Options, is_priority

P = ParamSpec("P")
R = TypeVar("R")
MOST_BYTES = 4  # of a character in UTF-8
NO_EXTRAS = Extras()
_NO_CONTEXT = nullcontext()
#: Runs a claim where it was enqueued; loaded when it is needed, as only workers need it otherwise.
RUN_EAGERLY = "snappea.workers.execute.run_eagerly"


class TaskFunction(Generic[P, R]):
    """A function that can also be called later: what @task makes.

    Calling it runs it here and now, as if it were undecorated.
    """

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.options = options
        self.name = options.name
        #: What a call has to fit.
        self.signature = signature_of(function)
        self._arity = plain_arity(self.signature)
        self._inside = inspect.signature(function)  # of what decorators wrap
        self._takes_using = "using" in {**self.signature.parameters, **self._inside.parameters}
        #: Whether it is an `async def` function.
        self.is_coroutine = iscoroutinefunction(function)
        #: Whether it runs on the event loop, not in a thread.
        self.is_async = self.is_coroutine and not options.is_isolated
        #: Whether it runs in a process of its own.
        self.is_isolated = options.is_isolated
        # integers: sqlite3 binds them faster than booleans
        self._flags = int(options.acks_late), int(self.is_async)
        special = (options.expires, options.max_concurrency, options.rate_limit, options.result_ttl)
        self._is_plain = special == (None,) * 4 and not options.unique and not options.sensitive

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __reduce__(self) -> str:
        """Pickle it as the function would be: by its name in its module."""
        return self.__qualname__

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return self.function(*args, **kwargs)

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Enqueue a call with these arguments; it is committed when this returns.

        Raises TypeError if the arguments do not fit the function or are not strict JSON,
        ArgumentsTooLarge, UnknownQueue or EnqueueError; in each case nothing was written.
        """
        call = self.call(args, kwargs)
        if running_loop() is not None:
            refuse_event_loop(self.__name__, self.name)
        return engine.choose().submit(call, self)  # as _enqueue(), which would cost one more call

    async def adelay(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Do as `delay()`, from asynchronous code."""
        return await sync_to_async(functools.partial(self.delay, *args, **kwargs))()

    def delay_many(self, calls: Iterable[tuple[Any, ...]]) -> list[AsyncResult]:
        """Enqueue one call for each tuple of positional arguments, all in one transaction.

        >>> send_mail.delay_many((user.pk,) for user in users)

        Raises as `delay()` does, and then enqueued none of them.
        """
        if running_loop() is not None:
            refuse_event_loop(self.__name__, self.name)
        encoded = []
        for args in calls:
            if not isinstance(args, (tuple, list)):
                raise TypeError(
                    f"{self.name}.delay_many() takes tuples of positional arguments, not {args!r}."
                )
            encoded.append(self.call(tuple(args), {}))
        return engine.choose().submit_many(encoded, self)

    def broadcast(self, /, *args: P.args, **kwargs: P.kwargs) -> list[AsyncResult]:
        """Enqueue a call for each Foreman at work, and return a result for each.

        Use it for what each Foreman keeps for itself, such as a cache in memory. On SQLite there is one
        Foreman, and this is `delay()`. Raises as `delay()` does, TypeError if limits of the task could keep
        it from running everywhere, and NotImplementedError with Celery as the engine.
        """
        refuse_event_loop(self.__name__, self.name)
        options = self.options
        if options.unique or options.max_concurrency is not None or options.interval is not None:
            raise TypeError(
                f"{self.name} cannot be broadcast: it has unique, max_concurrency or rate_limit, and would "
                "not run on every Foreman."
            )
        return engine.choose().broadcast(self.call(args, kwargs), self)

    @overload
    def delay_on_commit(self, /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def delay_on_commit(self, /, *args: Any, using: str, **kwargs: Any) -> None: ...
    def delay_on_commit(self, /, *args: Any, **kwargs: Any) -> None:
        """Enqueue a call once the surrounding transaction commits; at once if there is none.

        `using` is the alias of the transaction's database, "default" if not given; a task that has an
        argument of that name receives it. After a rollback nothing is enqueued. Raises as `delay()` does;
        the arguments are checked at once.
        """
        using = DEFAULT_DB_ALIAS if self._takes_using else kwargs.pop("using", DEFAULT_DB_ALIAS)
        if self.delay != MethodType(_DELAY, self):  # a test has put a mock in its place
            transaction.on_commit(functools.partial(self.delay, *args, **kwargs), using=using)
            return
        if running_loop() is not None:
            refuse_event_loop(self.__name__, self.name)
        call = self.call(args, kwargs)
        transaction.on_commit(lambda: self._enqueue(call, is_committed=True), using=using)

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
        ignore_result: bool | None = None,
        add_to_parent: bool | None = None,
        **unknown: Never,
    ) -> AsyncResult:
        """Enqueue a call with these arguments, and with other options than the task's.

        `countdown` (seconds) or `eta` (an aware datetime): when it may start. `expires` (seconds, or an aware
        datetime): when it is dropped. `result_ttl`: how long its result is kept, in seconds. `ignore_result`
        and `add_to_parent` are Celery's and have no effect. Raises as `delay()` does, and ValueError for an
        invalid time.

        >>> send_mail.apply_async((42,), countdown=60, priority=10)
        """
        require_known(unknown, self)
        if not isinstance(args, (tuple, list, NoneType)):
            raise TypeError(f"{self.name}: args={args!r} must be a tuple or a list.")
        if not isinstance(kwargs, (Mapping, NoneType)):
            raise TypeError(f"{self.name}: kwargs={kwargs!r} must be a dict.")
        call = self.call(tuple(args or ()), dict(kwargs or {}), queue)
        if priority is not None and not is_priority(priority):
            raise ValueError(f"{self.name}: priority={shown(priority)} must be from -100 to 100.")
        try:
            extras = with_options(call.extras, countdown, eta, expires, result_ttl)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name}: {error}") from None
        call = call._replace(extras=extras, priority=call.priority if priority is None else priority)
        return self._enqueue(call)

    def s(self, /, *args: Any, **kwargs: Any) -> "Signature":
        """Return a call that can be passed around and enqueued later, as in Celery."""
        return Signature(self, args, kwargs)

    def retry(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        """Retry the task that runs here: `current_task.retry(...)`."""
        raise context.current_task.retry(*args, **kwargs)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], queue: str | None = None) -> Call:
        """Check the arguments against the signature and encode them. Raises as `delay()` does.

        `queue`: instead of the task's own.
        """
        if kwargs or self._arity is None or len(args) not in self._arity:
            self.require_fit(args, kwargs)
        return self.encoded(args, kwargs, queue)

    def require_fit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError if the arguments do not fit the function."""
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None

    def spelling(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.Signature:
        """Return the signature that names the arguments: that inside of decorators, if they fit it."""
        try:
            self._inside.bind(*args, **kwargs)
            return self._inside
        except TypeError:
            return self.signature

    def encoded(self, args: tuple[Any, ...], kwargs: dict[str, Any], queue: str | None = None) -> Call:
        """Do as `call()`, without checking the signature."""
        options, configured = self.options, current()
        if configured.JSON_ENCODER is not None:
            args, kwargs = simplified(args), simplified(kwargs)
        encoded = encode(args, self.name)
        added = hook("HOOK_ADD_TASK_KWARGS")
        stored = {**kwargs, **added()} if added else kwargs
        named = encode(stored, self.name) if stored else "{}"
        limit = configured.MAX_ARGUMENT_BYTES
        if (len(encoded) + len(named)) * MOST_BYTES > limit:
            require_small(self.name, encoded, named, limit)
        if queue is not None or configured.QUEUES is not None:
            require_queue(options.queue if queue is None else queue, self.name)
        parent = context.parent_id()
        extras = None
        if not self._is_plain or parent is not None:
            extras = extras_of(self, args, kwargs, parent)
        return Call(self.name, encoded, named, queue or options.queue, options.priority, *self._flags, extras)

    def _enqueue(self, call: Call, is_committed: bool = False) -> AsyncResult:
        if running_loop() is not None:
            refuse_event_loop(self.__name__, self.name)
        return engine.choose().submit(call, self, is_committed=is_committed)

    def accepted(self, call_id: Any, is_new: bool) -> AsyncResult:
        """Return the result for a call that the engine has taken, and send task_enqueued if it is new."""
        if is_new and task_enqueued.receivers:
            tell(task_enqueued, self, id=call_id)
        return AsyncResult(call_id)

    def run_eagerly(self, call: Call) -> AsyncResult:
        """Run a call at once in the place of enqueueing it."""
        tell(task_enqueued, self, id=0)
        return AsyncResult(None, self.run_now(call))

    def run_now(self, call: Call) -> Any:
        """Run a call here and now, as a worker would, and return its result. Raises what it raises."""
        # what a worker would get, so that a test sees what the JSON makes of the arguments
        claim = Claim(0, 0, 0, call.task_name, call.args, call.kwargs, call.queue, enqueued_at=now())
        return import_string(RUN_EAGERLY)(self, claim)

    def run(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Run the function to its end, a coroutine function in an event loop of its own.

        Raises UnfinishedResult if it returns work that nothing would do.
        """
        if enter := hook("HOOK_RUN_TASK_CONTEXT"):
            with enter(kwargs):
                return self._run(args, kwargs)
        return self._run(args, kwargs)  # without a nullcontext(), which would cost two calls

    def _run(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        function: Any = self.function
        if self.is_coroutine:
            result = async_to_sync(functools.partial(function, *args, **kwargs))()
        else:
            result = function(*args, **kwargs)
        if type(result) not in FINISHED:
            require_finished(result, self.name)
        return result

    async def run_on_loop(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Run the coroutine function to its end, in the event loop that runs here."""
        function: Any = self.function
        enter = hook("HOOK_RUN_TASK_CONTEXT")
        with enter(kwargs) if enter else _NO_CONTEXT:
            result = await function(*args, **kwargs)
            if type(result) not in FINISHED:
                require_finished(result, self.name)
            return result

    def soft_time_limit(self, queue: str) -> float | None:
        """Return the soft time limit of a call in this queue, in seconds."""
        limit = self.options.soft_time_limit
        return soft_time_limit_of(queue) if limit is None else limit


#: What `delay` is where no test has put a mock in its place.
_DELAY = TaskFunction.delay
