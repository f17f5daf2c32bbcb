"""`snappea.step`, `astep` and `cursor`: what a task has done already, kept on its row for its next attempt.

The first use in an attempt reads the row. Each step that finishes is committed before it returns, by the
worker itself and by the claim's fence.
"""

import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any, ParamSpec, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction, sync_to_async

from ..errors import (
    ResultTooLarge,
    UnreadableArguments,
    UnserializableArgument,
    UnserializableResult,
    refuse_event_loop,
)
from ..queue.records import Claim
from ..queue.steps import require_commit
from .arguments import encode, simplified
from .calls import require_finished
from .context import current_claim, own
from .engine import EAGER, TABLE, Engine, of

P = ParamSpec("P")
R = TypeVar("R")

#: The longest name of a step, and the most that a task keeps as JSON, in characters.
MAX_NAME, MAX_KEPT = 200, 1_000_000
#: The cursor's name among the steps.
CURSOR = ""


class Steps:
    """What this attempt and those before it have kept, as JSON by the name of the step."""

    def __init__(self, claim: Claim | None) -> None:
        """Read the row, if there is one. Raises ClaimLost, QueueUnavailable or UnreadableArguments."""
        self._claim, self._engine = claim, _engine_of(claim)
        self._begun: set[str] = set()
        self._lock = threading.Lock()  # a task may have threads of its own
        try:
            found = json.loads((claim and self._engine.steps_of(claim)) or "{}")
            self.kept = {name: _encoded(value, name) for name, value in found.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise UnreadableArguments(f"The steps on the row are not a JSON object: {error}.") from error

    @contextmanager
    def begin(self, name: str) -> Iterator[None]:
        """Check that a step has a name of its own. Raises TypeError or ValueError."""
        if not isinstance(name, str):
            raise TypeError(f"step(): the name must be a string, not {type(name).__name__}.")
        if not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"step(): the name must have 1 to {MAX_NAME} characters, not {len(name)}.")
        if name in self._begun:
            raise ValueError(f"step({name!r}) began twice in one attempt: give each step a name of its own.")
        self._begun.add(name)
        try:
            yield
        except BaseException:
            if name not in self.kept:
                self._begun.discard(name)  # the task may try it again
            raise

    def require_commit(self) -> None:
        """Raise TransactionManagementError inside `atomic()` of the queue's database."""
        if self._engine is TABLE:
            require_commit()

    def keep(self, name: str, value: object) -> Any:
        """Commit a value, and return it as the next attempt reads it.

        Raises UnserializableResult, ResultTooLarge, ClaimLost, QueueUnavailable, or as require_commit().
        """
        encoded = _encoded(value, name)
        with self._lock:
            if self.kept.get(name) != encoded:
                kept = {**self.kept, name: encoded}
                text = f"{{{','.join(f'{_encoded(key, key)}:{value}' for key, value in kept.items())}}}"
                if len(text) > MAX_KEPT:
                    raise ResultTooLarge(
                        f"{_shown(name)}: the steps of a task may take {MAX_KEPT:,} characters as JSON, and "
                        f"these take {len(text):,}. Store the results elsewhere, and return their keys."
                    )
                if self._claim:
                    self._engine.keep_steps(self._claim, text)
                self.kept = kept
        return json.loads(encoded)

    def read(self, name: str, default: Any = None) -> Any:
        """Return what is kept under a name."""
        return json.loads(self.kept[name]) if name in self.kept else default


def _engine_of(claim: Claim | None) -> Engine:
    """Return the engine that has the claim's row. Others, such as Celery's, keep nothing for later."""
    return of(claim.id) if claim and claim.id and isinstance(claim.id, int) else EAGER


def _shown(name: str) -> str:
    return f"step({name!r})" if name else "cursor.set()"


def _encoded(value: object, name: str) -> str:
    what = "the result" if name else "the value"
    try:
        require_finished(value, _shown(name))
        return encode((simplified(value),), _shown(name))[1:-1]
    except UnserializableArgument as error:
        raise UnserializableResult(str(error).replace("(): argument[0]", f": {what}", 1)) from None


def _steps() -> Steps:
    """Return the steps of this attempt, shared by its threads and asyncio tasks; outside a task, new ones."""
    claim = current_claim()
    if claim is None:
        return Steps(None)
    found: Steps = (shared := own()).get("steps") or shared.setdefault("steps", Steps(claim))
    return found


def step(name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function once in the life of a task: a later attempt gets the result without the call.

    The result is strict JSON, as arguments are: a tuple returns as a list. It is committed when `step()`
    returns. Raises what the function raises, and what `Steps` raises. Outside a task nothing is kept.

    >>> charge_id = step("charge", charge, order_id)
    """
    refuse_event_loop("snappea")
    steps = _steps()
    with steps.begin(name):
        if name in steps.kept:
            return cast("R", steps.read(name))
        steps.require_commit()  # before the function runs
        return cast("R", steps.keep(name, function(*args, **kwargs)))


@overload
async def astep(
    name: str, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
) -> R: ...
@overload
async def astep(name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
async def astep(name: str, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
    """Do what `step()` does, in an asynchronous task. A function that is not asynchronous runs in a thread.

    >>> charge_id = await astep("charge", charge, order_id)
    """
    steps = await sync_to_async(_steps)()
    with steps.begin(name):
        if name in steps.kept:
            return steps.read(name)
        call: Any = function if iscoroutinefunction(function) else sync_to_async(function)
        result = await call(*args, **kwargs)
        if isawaitable(result):
            result = await result
        return await sync_to_async(steps.keep)(name, result)


class Cursor:
    """How far a long task has come: any JSON, which its next attempt reads. Outside a task nothing is kept.

    >>> for order in Order.objects.filter(pk__gt=cursor.get(0)).order_by("pk"):
    ...     ship(order)
    ...     cursor.set(order.pk)
    """

    def get(self, default: Any = None) -> Any:
        """Return the value that was set last, in this attempt or an earlier one."""
        refuse_event_loop("cursor")
        return _steps().read(CURSOR, default)

    def set(self, value: object) -> None:
        """Commit a value. Raises what `step()` raises."""
        refuse_event_loop("cursor")
        _steps().keep(CURSOR, value)

    async def aget(self, default: Any = None) -> Any:
        """Do what `get()` does, in an asynchronous task."""
        return await sync_to_async(self.get)(default)

    async def aset(self, value: object) -> None:
        """Do what `set()` does, in an asynchronous task."""
        await sync_to_async(self.set)(value)


cursor = Cursor()
