"""A Task of django.tasks as a TaskFunction: how it is enqueued and run."""

from collections.abc import Callable, Iterable
from contextvars import ContextVar, copy_context
from traceback import format_exception
from typing import Any
from uuid import uuid4

from django.db import DEFAULT_DB_ALIAS, transaction

from .. import signals
from ..errors import refuse_event_loop
from ..queue.clock import as_datetime, as_text, now
from ..queue.records import Call, Extras
from ..tasks import context, engine
from ..tasks.arguments import require_whole
from ..tasks.calls import plain_arity, without_context
from ..tasks.function import TaskFunction
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
from .ids import id_of
from .restore import declared, overrides_of, seal_of, set_fields
from .results import FAILED, SUCCESSFUL, WORKER, finish, new_result, path_of, result_of_claim, result_of_row

#: The result of a call that runs eagerly.
_given: ContextVar[AnyResult | None] = ContextVar("snappea_task_result", default=None)


class DjangoTask(TaskFunction[..., Any]):
    """The function of a django.tasks Task, for the backend of an alias."""

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
        self.sender = sender  # of the signals of django.tasks
        self.seal = seal_of(self.name)
        if takes_context:
            self.signature, self._inside = map(without_context, (self.signature, self._inside))
            self._arity = plain_arity(self.signature)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], queue: str | None = None) -> Call:
        """Return the call of a schedule."""
        task = declared(self.name)
        assert task
        return self.with_origin(super().call(args, kwargs, queue or task.queue_name), task)

    def enqueue(self, task: AnyTask, args: Any, kwargs: Any, waits: bool) -> AnyResult:
        """Enqueue a call. Raises as the backend's method does.

        `waits`: until the caller's transaction commits. The result has no id before.
        """
        refuse_event_loop(self.__name__, self.name)
        require_whole((args, kwargs), self.name)
        result = new_result(task, args, kwargs, backend=self.alias)
        # the arguments in the result are normalized: bytes, for example, are text
        call = self.with_origin(self.encoded(tuple(result.args), result.kwargs, task.queue_name), task)

        def submit() -> AnyResult:
            enqueueing = _Enqueueing(self, result)
            return engine.choose().submit(call, enqueueing, enqueueing.moment, is_committed=waits)

        if not waits:
            return submit()
        transaction.on_commit(submit, using=DEFAULT_DB_ALIAS)
        return result

    def with_origin(self, call: Call, task: AnyTask) -> Call:
        """Return a call with the columns from which the task can be restored."""
        extras = call.extras or Extras()
        return call._replace(
            priority=int(task.priority),
            extras=extras._replace(
                run_after=extras.run_after if task.run_after is None else as_text(task.run_after),
                result_ttl=extras.result_ttl or 0,  # not None: the row must exist after it has ended
                keeps_result=True,
                backend=self.alias,
                overrides=overrides_of(task, declared(self.name), self.seal),
            ),
        )

    def run(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Run the function. Raises TypeError if its result is not JSON."""
        result = self._begun(args, kwargs)
        task_started.send_robust(sender=self.sender, task_result=result)
        return normalize_json(super().run(self._with_context(result, args), kwargs))

    async def run_on_loop(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Run the coroutine function in the running event loop. Raises TypeError like `run()`."""
        result = self._begun(args, kwargs)
        await task_started.asend_robust(sender=self.sender, task_result=result)
        return normalize_json(await super().run_on_loop(self._with_context(result, args), kwargs))

    def _with_context(self, result: AnyResult, args: Iterable[Any]) -> Iterable[Any]:
        return (TaskContext(task_result=result), *args) if self.takes_context else args

    def _begun(self, args: Iterable[Any], kwargs: dict[str, Any]) -> AnyResult:
        given, claim = _given.get(), context.current_claim()
        assert claim
        return given or result_of_claim(self.alias, claim, list(args), kwargs)


class _Enqueueing:
    """Passes a call to the engine, and completes its TaskResult."""

    def __init__(self, function: DjangoTask, result: AnyResult) -> None:
        self.function = function
        self.result = result
        self.moment = now()

    def accepted(self, call_id: Any, is_new: bool) -> AnyResult:
        """Return the result of the call, or of the identical call that already waits."""
        if not is_new:
            set_fields(self.result, id=self._id_of(call_id))
            row = engine.of(call_id).find(call_id)
            return result_of_row(row) if row else self.result  # it has ended, within `unique_for`
        self._tell_enqueued(self._id_of(call_id), call_id)
        return self.result

    def _id_of(self, call_id: Any) -> str:
        return id_of(self.function.alias, call_id, as_datetime(self.moment))

    def _tell_enqueued(self, result_id: str, row_id: int) -> None:
        set_fields(self.result, id=result_id, enqueued_at=as_datetime(self.moment))
        signals.tell(signals.task_enqueued, self.function, id=row_id)
        task_enqueued.send_robust(sender=self.function.sender, task_result=self.result)

    def run_eagerly(self, call: Call) -> AnyResult:
        """Run a call, and store what it raises in its result."""
        result = self.result
        self._tell_enqueued(str(uuid4()), 0)
        began = as_datetime(now())
        set_fields(result, status=TaskResultStatus.RUNNING, started_at=began, last_attempted_at=began)
        result.worker_ids.append(WORKER)
        inside = copy_context()
        inside.run(_given.set, result)
        try:
            value = inside.run(self.function.run_now, call)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:
            text = "".join(format_exception(failure))
            result.errors.append(TaskError(exception_class_path=path_of(type(failure)), traceback=text))
            finish(result, status=FAILED)
            task_finished.send_robust(sender=self.function.sender, task_result=result)
        else:
            finish(result, status=SUCCESSFUL, _return_value=value)
            task_finished.send_robust(sender=self.function.sender, task_result=result)
        return result
