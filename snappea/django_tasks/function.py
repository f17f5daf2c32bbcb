"""A Task of django.tasks as one of ours: how it is enqueued and run."""

from collections.abc import Callable, Iterable
from contextvars import ContextVar, copy_context
from traceback import format_exception
from typing import Any, TypeVar

from django.conf import settings
from django.utils.crypto import get_random_string

from .. import models, signals
from ..conf import current
from ..queue.clock import as_datetime, as_text, now
from ..queue.records import Call
from ..sync_only import refuse_event_loop
from ..tasks import context, engine
from ..tasks.arguments import require_whole
from ..tasks.callables import plain_arity, without_context
from ..tasks.calls import warn_of_open_transaction
from ..tasks.function import NO_TERMS, TaskFunction
from ..tasks.options import Options
from .framework import (
    AnyResult,
    AnyTask,
    BaseTaskBackend,
    TaskContext,
    TaskError,
    TaskResultStatus,
    normalize_json,
    task_enqueued,
    task_finished,
    task_started,
)
from .results import (
    WORKER,
    Result,
    declared,
    overrides_of,
    result_of_claim,
    result_of_row,
    set_fields,
)

T = TypeVar("T")

#: Of a call that runs where it was enqueued.
_given: ContextVar[AnyResult | None] = ContextVar("snappea_task_result", default=None)


class DjangoTask(TaskFunction[..., Any]):
    """A function of django.tasks, as the backend of an alias has it run."""

    def __init__(
        self,
        function: Callable[..., Any],
        options: Options,
        takes_context: bool,
        alias: str,
        sender: type[BaseTaskBackend],
    ) -> None:
        super().__init__(function, options)
        self.takes_context = takes_context
        self.alias = alias
        #: Of django.tasks' signals.
        self.sender = sender
        if takes_context:
            self.signature, self._inside = map(without_context, (self.signature, self._inside))
            self._arity = plain_arity(self.signature)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], queue: str | None = None) -> Call:
        """Do as for `snappea.task`: for schedules."""
        task = declared(self.name)
        assert task
        return self._enqueued_by_alias(super().call(args, kwargs, queue or task.queue_name), task)

    def call_of(self, task: AnyTask, result: AnyResult) -> Call:
        """Return a call of the task with the arguments of a result. Raises as `enqueue()` does."""
        call = self.encoded(tuple(result.args), result.kwargs, task.queue_name)
        return self._enqueued_by_alias(call, task)

    def _enqueued_by_alias(self, call: Call, task: AnyTask) -> Call:
        extras = call.extras or NO_TERMS
        return call._replace(
            priority=int(task.priority),
            extras=extras._replace(
                run_after=None if task.run_after is None else as_text(task.run_after),
                result_ttl=extras.result_ttl or 0,  # a row that goes at once is there to be heard of
                backend=self.alias,
                overrides=overrides_of(task, declared(self.name)),
            ),
        )

    def run(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Run the function to its end. Raises TypeError if what it returns is not JSON."""
        result = self._begun(args, kwargs)
        task_started.send_robust(sender=self.sender, task_result=result)
        return normalize_json(super().run(self._with_context(result, args), kwargs))

    async def run_on_loop(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Do the same in the event loop that runs here."""
        result = self._begun(args, kwargs)
        await task_started.asend_robust(sender=self.sender, task_result=result)
        return normalize_json(await super().run_on_loop(self._with_context(result, args), kwargs))

    def _with_context(self, result: AnyResult, args: Iterable[Any]) -> Iterable[Any]:
        return (TaskContext(task_result=result), *args) if self.takes_context else args

    def _begun(self, args: Iterable[Any], kwargs: dict[str, Any]) -> AnyResult:
        given, claim = _given.get(), context.current_claim()
        assert claim
        return given or result_of_claim(self.alias, claim, list(args), kwargs)


# enqueue


def enqueue(function: DjangoTask, task: AnyTask, args: Any, kwargs: Any) -> AnyResult:
    """Enqueue a call. Raises as the backend's method does."""
    refuse_event_loop(function.__name__, function.name)
    require_whole((args, kwargs), function.name)
    result = Result(
        task=task,
        id="",
        status=TaskResultStatus.READY,
        enqueued_at=None,
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        args=args,
        kwargs=kwargs,
        backend=function.alias,
        errors=[],
        worker_ids=[],
    )
    call = function.call_of(task, result)
    if current().TASK_ALWAYS_EAGER:
        return _run_now(function, call, result)
    if settings.DEBUG:
        warn_of_open_transaction()
    moment = now()
    task_id, is_new = engine.enqueue(call, moment)
    if not is_new and (row := models.Task.objects.filter(pk=task_id).first()):
        return result_of_row(row)
    set_fields(result, id=str(task_id), enqueued_at=as_datetime(moment))
    signals.tell(signals.task_enqueued, function, id=task_id)
    task_enqueued.send_robust(sender=function.sender, task_result=result)
    return result


def _run_now(function: DjangoTask, call: Call, result: AnyResult) -> AnyResult:
    """Run a call where it was enqueued (TASK_ALWAYS_EAGER); whatever it raises stands in its result."""
    set_fields(result, id=get_random_string(32), enqueued_at=as_datetime(now()))
    signals.tell(signals.task_enqueued, function, id=0)
    task_enqueued.send_robust(sender=function.sender, task_result=result)
    began = as_datetime(now())
    set_fields(result, status=TaskResultStatus.RUNNING, started_at=began, last_attempted_at=began)
    result.worker_ids.append(WORKER)
    inside = copy_context()
    inside.run(_given.set, result)
    try:
        value = inside.run(function.run_now, call)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:
        kind, text = type(failure), "".join(format_exception(failure))
        result.errors.append(
            TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=text)
        )
        set_fields(result, status=TaskResultStatus.FAILED, finished_at=as_datetime(now()))
        task_finished.send_robust(sender=function.sender, task_result=result)
    else:
        set_fields(
            result, status=TaskResultStatus.SUCCESSFUL, finished_at=as_datetime(now()), _return_value=value
        )
        task_finished.send_robust(sender=function.sender, task_result=result)
    return result
