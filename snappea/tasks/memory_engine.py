"""Keeps calls in memory while tests run, so that code under test can call `delay()` without a queue.

`snappea.testing` shows and runs them. Each test starts with none.
"""

import copy
import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from typing import Any

from ..errors import AlreadyEnqueued
from ..models import WAITING, Status, Task
from ..queue.clock import as_datetime, as_text, later, now
from ..queue.records import Call, Claim, ClaimExtras, Extras, Origin, Outcome, UniqueRule
from .engine import require_kept, result_of
from .memory_batches import MemoryBatches


class MemoryEngine(MemoryBatches):
    """Keeps calls as unsaved rows, in the order in which they were enqueued."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()  # threads of a live server enqueue, too
        self._ids = count(1)
        #: Until when no identical call is accepted after one with `unique_for`, and the id of that one.
        self._until: dict[str | None, tuple[datetime, int]] = {}

    def enqueue(self, call: Call, moment: str | None = None) -> tuple[int, bool]:
        """Keep a call. Return its id, and whether it is new."""
        enqueued_at = as_datetime(moment or now())
        columns = call._asdict() | (call.extras or Extras())._asdict()
        del columns["extras"]
        rule = columns.pop("unique_rule")
        for name in ("run_after", "expires_at"):
            columns[name] = columns[name] and as_datetime(columns[name])
        with self._lock:
            _clear_before_each_test()
            same = self._identical(columns["unique_key"], enqueued_at)
            if same and rule and rule.on_conflict == "raise":
                raise AlreadyEnqueued(call.task_name, same)
            if same and rule and rule.on_conflict == "replace":
                self._replace(self._rows[same], columns, rule)
            if same:
                return same, False
            row = Task(id=next(self._ids), enqueued_at=enqueued_at, **columns)
            row.status = _status_of(row, enqueued_at)
            self._rows[row.pk] = row
            if rule and rule.seconds is not None:
                until = as_datetime(later(as_text(enqueued_at), rule.seconds))
                self._until[columns["unique_key"]] = until, row.pk
        return row.pk, True

    def enqueue_many(self, calls: Sequence[Call]) -> list[tuple[int, bool]]:
        """Keep many calls, or none if AlreadyEnqueued is raised."""
        with self._all_or_none():
            return [self.enqueue(call) for call in calls]

    def submit_batch(self, collector: Any) -> None:
        """Keep a batch and its members, or none of them."""
        with self._all_or_none():
            for batch_id in reversed(self._write(collector.plan, None)):
                self._end_member(batch_id)  # it may be empty

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        with self._lock:
            before = self.state()
            try:
                yield
            except (AlreadyEnqueued, LookupError):
                self._rows, self._until, self._batches = before
                raise

    def _replace(self, row: Task, columns: dict[str, Any], rule: UniqueRule) -> None:
        for name, value in columns.items():
            if name != "batch_id":
                setattr(row, name, value)
        row.attempts, row.steps = 0, ""
        if row.run_after and rule.latest is not None:
            row.run_after = min(row.run_after, as_datetime(later(as_text(row.enqueued_at), rule.latest)))
        row.status = _status_of(row, as_datetime(now()))

    def _identical(self, key: str | None, moment: datetime) -> int | None:
        until, call_id = self._until.get(key, (moment, None))
        if key is None or until > moment:
            return call_id
        for row in self._rows.values():
            is_running = row.unique_running and row.status == Status.RUNNING
            if row.unique_key == key and (is_running or row.status in WAITING):
                return row.pk
        return None

    def steps_of(self, claim: Claim) -> str:
        """Return the row's steps."""
        return row.steps if (row := self._rows.get(claim.id)) else ""

    def keep_steps(self, claim: Claim, steps: str) -> None:
        """Keep them on the row."""
        if row := self._rows.get(claim.id):
            row.steps = steps

    def find(self, call_id: Any) -> Task | None:
        """Return the current row; None if it is gone."""
        with self._lock:
            return copy.copy(self._rows.get(call_id))

    def wait(self, call_id: Any, timeout: float | None) -> Any:
        """Return the result. Raises TimeoutError if the test has not run the call: nothing else would."""
        task = self.find(call_id)
        if ended := require_kept(task, call_id):
            return result_of(ended)
        raise TimeoutError(
            f"{task} waits in memory, because tests run: call snappea.testing.drain(), or set "
            "TASK_ALWAYS_EAGER."
        )

    def cancel(self, call_id: Any, terminate: bool = False) -> bool:
        """Forget a call that waits. Return whether it did."""
        with self._lock:
            row = self._rows.get(call_id)
            if row is None or row.status not in WAITING:
                return False
            del self._rows[call_id]
            if self._until.get(row.unique_key, (None, 0))[1] == call_id:
                del self._until[row.unique_key]
            self._end_member(row.batch_id)
            return True

    # for snappea.testing

    def state(self) -> tuple[dict[Any, Any], ...]:
        """Return all that is kept."""
        return dict(self._rows), dict(self._until), dict(self._batches)

    def resume(self, state: tuple[dict[Any, Any], ...]) -> None:
        """Keep what `state()` has returned in another process."""
        self._rows, self._until, self._batches = state
        self._ids, self._batch_ids = (count(max(kept, default=0) + 1) for kept in (state[0], state[2]))

    def start_again(self, call_id: int) -> Claim:
        """Claim a call that waits, or was interrupted."""
        row = self._rows[call_id]
        row.status, row.attempts = Status.RUNNING.value, row.attempts + 1
        return claim_of(row, self._passes_result(row))

    def waiting(self) -> list[Task]:
        """Return the calls that wait."""
        with self._lock:
            return [copy.copy(row) for row in self._rows.values() if row.status in WAITING]

    def claim(self, including_scheduled: bool) -> Claim | None:
        """Claim the call that a Foreman would claim next. `including_scheduled`: even if it is not due."""
        moment = as_datetime(now())
        with self._lock:
            for row in list(self._rows.values()):
                if row.status in WAITING and row.expires_at and row.expires_at <= moment:
                    del self._rows[row.pk]
                    self._end_member(row.batch_id)
            due_at = {
                row.pk: row.run_after if row.status == Status.SCHEDULED and row.run_after else moment
                for row in self._rows.values()
                if row.status in WAITING
            }
            if including_scheduled and due_at:
                moment = max(moment, min(due_at.values()))
            due = [self._rows[pk] for pk, due in due_at.items() if due <= moment]
            if not due:
                return None
            first = min(due, key=lambda row: (-row.priority, row.pk))
            return self.start_again(first.pk)

    def settle(self, outcome: Outcome) -> None:
        """Write a call's outcome to its row, as a Foreman would."""
        moment = now()
        with self._lock:
            row = self._rows.get(outcome.claim.id)
            if row is None:  # the test cleared them in the meantime
                return
            row.error, row.finished_at = outcome.error, as_datetime(moment)
            if not outcome.error:
                row.status = Status.SUCCESSFUL.value
                row.result = outcome.result if row.keeps_result else None
                if row.result_ttl is None:
                    del self._rows[row.pk]
                passed = outcome.result if outcome.claim.extras.passes_result else None
                self._end_member(row.batch_id, True, passed)
                return
            row.errors += outcome.error_line(moment) + "\n"
            row.status = Status.FAILED.value
            if outcome.retry_after is not None:
                row.run_after = as_datetime(later(moment, outcome.retry_after))
                row.status, row.finished_at = Status.SCHEDULED.value, None
            self._end_member(row.batch_id)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._rows.clear()
            self._until.clear()
            self._batches.clear()


#: The calls of this process.
MEMORY = MemoryEngine()


def _status_of(row: Task, moment: datetime) -> str:
    is_later = row.run_after is not None and row.run_after > moment
    return Status.SCHEDULED.value if is_later else Status.READY.value


def claim_of(row: Task, passes_result: bool) -> Claim:
    """Return the claim that a worker would get."""
    extras = ClaimExtras(
        result_ttl=row.result_ttl,
        keeps_result=row.keeps_result,
        lane=row.lane,
        lane_interval=row.lane_interval,
        parent_id=row.parent_id,
        batch_id=row.batch_id,
        passes_result=passes_result,
        expires_at=as_text(row.expires_at) if row.expires_at else None,
        run_after=as_text(row.run_after) if row.run_after else None,
        is_sensitive=row.is_sensitive,
        origin=Origin(row.backend, row.overrides, now(), None, "") if row.backend else None,
    )
    return Claim(
        *(-row.priority, row.pk, row.attempts, row.task_name, row.args, row.kwargs, row.queue, row.attempts),
        enqueued_at=as_text(row.enqueued_at),
        is_async=bool(row.is_async),
        started_at=now(),
        extras_json=extras.as_json(),
    )


@functools.cache
def _clear_before_each_test() -> None:
    """Make each unittest.TestCase start without calls, as Django does with `mail.outbox`."""
    import unittest

    run = unittest.TestCase.run

    @functools.wraps(run)
    def run_with_none(self: unittest.TestCase, result: Any = None) -> Any:
        MEMORY.clear()
        return run(self, result)

    unittest.TestCase.run = run_with_none  # type: ignore[method-assign]  # unittest has no hook
