"""Calls that were enqueued while tests run: kept in memory, in the place of the table.

So that code which calls `delay()` can be tested without a database for it and without a Foreman.
`snappea.testing` is for looking at them and running them. Every test begins with none.
"""

import dataclasses
import functools
import threading
from collections.abc import Sequence
from itertools import count
from typing import Any

from ..models import WAITING, Status, Task
from ..queue.clock import as_datetime, later, now
from ..queue.records import Call, Claim, ClaimExtras, Extras, Origin, Outcome
from .engine import Engine, require_kept, result_of


@dataclasses.dataclass
class Entry:
    """A call, and what a row would say of it. Times are as in the database."""

    id: int
    call: Call
    enqueued_at: str
    status: str
    run_after: str | None
    attempts: int = 0
    finished_at: str | None = None
    error: str = ""
    errors: str = ""
    result: str | None = None

    @property
    def extras(self) -> Extras:
        """The columns that most calls leave alone."""
        return self.call.extras or Extras()

    @property
    def due(self) -> str:
        """Since when it may run; the empty string if it is ready."""
        return (self.run_after or "") if self.status == Status.SCHEDULED else ""

    def as_task(self) -> Task:
        """Return the row that it would be; it is not in any database."""
        columns: dict[str, Any] = self.call._asdict() | self.extras._asdict() | dataclasses.asdict(self)
        for name in ("enqueued_at", "run_after", "expires_at", "finished_at"):
            columns[name] = columns[name] and as_datetime(columns[name])
        names = {field.name for field in Task._meta.fields}
        return Task(**{name: value for name, value in columns.items() if name in names})

    def as_claim(self) -> Claim:
        """Return what a worker would get."""
        call, extras = self.call, self.extras
        more = ClaimExtras(
            result_ttl=extras.result_ttl,
            lane=extras.lane,
            lane_interval=extras.lane_interval,
            parent_id=extras.parent_id,
            expires_at=extras.expires_at,
            run_after=self.run_after,
            is_sensitive=extras.is_sensitive,
            origin=Origin(extras.backend, extras.overrides, now(), None, "") if extras.backend else None,
        )
        return Claim(
            -call.priority,
            self.id,
            self.attempts,
            call.task_name,
            call.args,
            call.kwargs,
            call.queue,
            self.attempts,
            self.enqueued_at,
            bool(call.is_async),
            now(),
            more.as_json(),
        )


class MemoryEngine(Engine):
    """Keeps calls in memory, in the order in which they were enqueued."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the threads of a live server enqueue as well
        self._ids = count(1)
        self._entries: dict[int, Entry] = {}

    def enqueue(self, call: Call, moment: str | None = None) -> tuple[int, bool]:
        """Keep a call. Return its id, and whether it is new."""
        moment, extras = moment or now(), call.extras or Extras()
        with self._lock:
            _clear_before_each_test()
            if extras.unique_key and (same := self._identical(extras.unique_key)):
                return same.id, False
            is_later = extras.run_after is not None and extras.run_after > moment
            status = Status.SCHEDULED if is_later else Status.READY
            entry = Entry(next(self._ids), call, moment, status.value, extras.run_after)
            self._entries[entry.id] = entry
        return entry.id, True

    def enqueue_many(self, calls: Sequence[Call]) -> list[tuple[int, bool]]:
        """Keep many calls."""
        return [self.enqueue(call) for call in calls]

    def _identical(self, key: str) -> Entry | None:
        for entry in self._entries.values():
            if entry.extras.unique_key == key:
                is_running = entry.extras.unique_running and entry.status == Status.RUNNING
                if is_running or entry.status in WAITING:
                    return entry
        return None

    def find(self, call_id: Any) -> Task | None:
        """Return what the row would be now, None if it would be gone."""
        with self._lock:
            entry = self._entries.get(call_id)
            return entry.as_task() if entry else None

    def wait(self, call_id: Any, timeout: float | None) -> Any:
        """Return the result if the test has run the call. Raises TimeoutError, as nothing else runs it."""
        task = self.find(call_id)
        if ended := require_kept(task, call_id):
            return result_of(ended)
        raise TimeoutError(
            f"{task} is kept in memory, because tests run, and waits: call snappea.testing.drain(), or set "
            "TASK_ALWAYS_EAGER."
        )

    def cancel(self, call_id: Any, terminate: bool = False) -> bool:
        """Forget a call if it waits, and tell whether it did."""
        with self._lock:
            entry = self._entries.get(call_id)
            if entry is None or entry.status not in WAITING:
                return False
            del self._entries[entry.id]
            return True

    # for snappea.testing

    def waiting(self) -> list[Task]:
        """Return the calls that wait."""
        with self._lock:
            return [entry.as_task() for entry in self._entries.values() if entry.status in WAITING]

    def claim(self, including_scheduled: bool) -> Claim | None:
        """Take the call that a Foreman would take first; if none is due, perhaps the one due next."""
        moment = now()
        with self._lock:
            for entry in list(self._entries.values()):
                if entry.status in WAITING and (entry.extras.expires_at or "never") <= moment:
                    del self._entries[entry.id]
            waiting = [entry for entry in self._entries.values() if entry.status in WAITING]
            if including_scheduled and waiting:
                moment = max(moment, min(entry.due for entry in waiting))
            due = [entry for entry in waiting if entry.due <= moment]
            if not due:
                return None
            first = min(due, key=lambda entry: (-entry.call.priority, entry.id))
            first.status, first.attempts = Status.RUNNING.value, first.attempts + 1
            return first.as_claim()

    def settle(self, outcome: Outcome) -> None:
        """Note what became of a call, as a Foreman does on a row."""
        moment = now()
        with self._lock:
            entry = self._entries.get(outcome.claim.id)
            if entry is None:  # the test has cleared them in the meantime
                return
            entry.error, entry.finished_at = outcome.error, moment
            if outcome.error:
                entry.errors += outcome.error_line(moment) + "\n"
            if not outcome.error and outcome.result is None:
                del self._entries[entry.id]
            elif not outcome.error:
                entry.status, entry.result = Status.SUCCESSFUL.value, outcome.result
            elif outcome.retry_after is not None:
                entry.status, entry.finished_at = Status.SCHEDULED.value, None
                entry.run_after = later(moment, outcome.retry_after)
            else:
                entry.status = Status.FAILED.value

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._entries.clear()


#: The calls of this process.
MEMORY = MemoryEngine()


def clear() -> None:
    """Forget all calls."""
    MEMORY.clear()


@functools.cache
def _clear_before_each_test() -> None:
    """Make each unittest.TestCase start with no calls, as Django does with `mail.outbox`."""
    import unittest

    run = unittest.TestCase.run

    @functools.wraps(run)
    def run_with_none(self: unittest.TestCase, result: Any = None) -> Any:
        clear()
        return run(self, result)

    unittest.TestCase.run = run_with_none  # type: ignore[method-assign]  # that is the point
