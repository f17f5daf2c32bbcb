"""What a task function offers in Celery's words; with `bind=True` it is the function's first argument."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

from ..errors import MaxRetriesExceededError, Retry, refuse_event_loop
from ..models import Status
from ..queue.records import Call, Claim
from . import calls, context
from .arguments import decode
from .calls import Signature
from .options import Options
from .results import AsyncResult


class Request:
    """The running call of a task, as `self.request`. Attributes that `current_task` has are there only."""

    def __init__(self, claim: Claim | None) -> None:
        self._claim = claim

    @property
    def called_directly(self) -> bool:
        """Whether the function was called like any other function."""
        return self._claim is None

    @property
    def id(self) -> Any:
        """The primary key of its row; Celery's id if Celery is the engine; None if it has neither."""
        return (self._claim and self._claim.id) or None

    @property
    def retries(self) -> int:
        """How often it was retried."""
        return self._claim.retries if self._claim else 0

    @property
    def args(self) -> list[Any]:
        """The positional arguments; none if it was called directly."""
        return decode(self._claim.args, "{}")[0] if self._claim else []

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments; none if it was called directly."""
        return decode("[]", self._claim.kwargs)[1] if self._claim else {}


class EagerResult(AsyncResult):
    """The result of `apply()`: of a call that has run in this process."""

    def __init__(self, result: Any) -> None:
        """`result`: what the call returned, or the exception that it raised."""
        super().__init__(None, result)

    @property
    def result(self) -> Any:
        """What the call returned, or the exception that it raised."""
        return self._result

    @property
    def status(self) -> str:
        """`successful` or `failed`."""
        return (Status.FAILED if self.failed() else Status.SUCCESSFUL).value

    def ready(self) -> bool:
        """Return True: it has ended."""
        return True

    def successful(self) -> bool:
        """Tell whether it returned."""
        return not self.failed()

    def failed(self) -> bool:
        """Tell whether it raised an exception."""
        return isinstance(self._result, Exception)

    def get(self, timeout: float | None = None) -> Any:
        """Return what the call returned, or raise the exception that it raised."""
        if self.failed():
            raise self._result
        return self._result


class BoundTask:
    """The names of Celery's tasks that every TaskFunction has."""

    __name__: str
    name: str
    options: Options

    @property
    def request(self) -> Request:
        """The running call of this task."""
        claim = context.current_claim()
        names = self.name, *self.options.aliases
        return Request(claim if claim and claim.task_name in names else None)

    @property
    def max_retries(self) -> int | None:
        """The task's option `max_retries`."""
        return self.options.max_retries

    def retry(
        self,
        exc: BaseException | None = None,
        countdown: float | timedelta | None = None,
        eta: datetime | None = None,
        max_retries: int | None = None,
        **unknown: Any,
    ) -> NoReturn:
        """Retry the running task, as `current_task.retry(...)` does.

        A task with `bind=True` that has no retries left raises `exc` here, or MaxRetriesExceededError; called
        directly, it raises `exc`, or Retry. Raises TypeError or ValueError for an invalid argument.
        """
        calls.require_known(unknown, self, "retry")
        if self.options.bind:
            self._require_retries(Retry(exc=exc, countdown=countdown, eta=eta, max_retries=max_retries))
        raise context.current_task.retry(exc, countdown, eta, max_retries)

    def _require_retries(self, retry: Retry) -> None:
        """Raise what `retry()` raises if the running call cannot be retried."""
        request = self.request
        if request.called_directly:
            raise retry.exc or retry
        if self.options.retry_after(retry, request.retries) is None:
            raise retry.exc or MaxRetriesExceededError(
                f"{self.name} #{request.id} was retried {request.retries} times, and has no retries left."
            )

    def s(self, /, *args: Any, **kwargs: Any) -> Signature:
        """Return a Signature: a call to pass around and enqueue later, as in Celery.

        >>> send_mail.s(42).set(countdown=60).delay()
        """
        return Signature(self, args, kwargs)

    def si(self, /, *args: Any, **kwargs: Any) -> Signature:
        """Return a Signature like `s()`. Arguments that are added when it is enqueued are ignored."""
        return Signature(self, args, kwargs, immutable=True)

    def apply(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool = False,
        **options: Any,
    ) -> EagerResult:
        """Run a call here and now, without a queue, and return its result, even if it failed.

        With `throw`, raise what the call raises. A retry counts as a failure. The options of `apply_async()`
        have no effect. Raises TypeError if the arguments do not fit the function or are not strict JSON, and
        SynchronousOnlyOperation on an event loop.
        """
        calls.require_known(options, self, "apply")
        refuse_event_loop(self.__name__, self.name)
        call = self.call(tuple(args or ()), dict(kwargs or {}))
        try:
            return EagerResult(self.run_now(call))
        except Exception as failure:
            if throw:
                raise
            return EagerResult(context.cause_of(failure))

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], queue: str | None = None) -> Call:
        """Check and encode a call."""
        raise NotImplementedError

    def run_now(self, call: Call) -> Any:
        """Run a call as a worker would."""
        raise NotImplementedError
