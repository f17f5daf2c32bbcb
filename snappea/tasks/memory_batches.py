"""Batches of calls that are kept in memory while tests run. They follow the rules of `queue.callbacks`."""

from collections import Counter
from itertools import count
from typing import Any

from ..models import Batch, Status, Task
from ..queue.batches import Plan
from ..queue.callbacks import AWAITS_RESULT, callback_of, due_callbacks, of_batch, with_result
from ..queue.clock import as_datetime, now
from ..queue.states import UNSUCCESSFUL
from .engine import Engine

_ACTIVE = Status.READY, Status.SCHEDULED, Status.RUNNING


class MemoryBatches(Engine):
    """Keeps batches as unsaved rows."""

    def __init__(self) -> None:
        self._rows: dict[int, Task] = {}
        self._batches: dict[int, Batch] = {}
        self._batch_ids = count(1)

    def counts(self, batch_id: int) -> Counter[str]:
        """Return what `queue.batches.counts()` does. Raises LookupError."""
        family = self._family(batch_id)
        if not family:
            raise LookupError(f"Batch {batch_id} does not exist any more.")
        found = Counter(row.status for row in self._rows.values() if row.batch_id in family)
        for batch in (self._batches[one] for one in family):
            found += Counter(total=batch.total, succeeded=batch.succeeded)
        return found

    def cancel_batch(self, batch_id: int) -> int:
        """Forget the members that wait, and return how many."""
        family = self._family(batch_id)
        for one in family:
            self._batches[one].on_success = None
        return sum(self.cancel(row.pk, False) for row in list(self._rows.values()) if row.batch_id in family)

    def _family(self, batch_id: int) -> set[int]:
        ids = {batch_id}
        for batch in self._batches.values():  # each after the one around it
            if batch.parent_id in ids:
                ids.add(batch.pk)
        return ids & self._batches.keys()

    def _passes_result(self, row: Task) -> bool:
        """Tell whether a call that follows takes the result of this one."""
        batch = self._batches.get(row.batch_id or 0)
        if batch is None or not (batch.on_success or "").startswith(AWAITS_RESULT):
            return False
        return row.pk == min(other.pk for other in self._rows.values() if other.batch_id == batch.pk)

    def _write(self, plan: Plan, parent_id: int | None) -> list[int]:
        """Keep a batch and its members. Return its id, and those of the batches in it."""
        if plan.id is None:
            batch = Batch(next(self._batch_ids), plan.description, parent_id, created_at=as_datetime(now()))
            batch.on_success, batch.on_failure, batch.on_complete = plan.callbacks
            self._batches[batch.pk] = batch
        elif found := self._batches.get(plan.id):
            batch = found
        else:
            raise LookupError(f"Batch {plan.id} does not exist any more.")
        self._reopen(batch)
        plan.written = [self.enqueue(of_batch(call, batch.pk)) for call, *_ in plan.members]
        added = sum(is_new for _call_id, is_new in plan.written)
        batch.total += added
        if plan.is_chain and not added:
            del self._batches[batch.pk]
            return []
        plan.id = batch.pk
        return [batch.pk, *(one for part in plan.parts for one in self._write(part, batch.pk))]

    def _reopen(self, batch: Batch | None) -> None:
        while batch:
            batch.finished_at = None
            batch = self._batches.get(batch.parent_id or 0)

    def _end_member(
        self, batch_id: int | None, has_succeeded: bool = False, result: str | None = None
    ) -> None:
        """Enqueue what follows the end of a member. `result`: for the call that follows, as JSON."""
        batch = self._batches.get(batch_id or 0)
        if batch is None:
            return
        batch.succeeded += has_succeeded
        if result is not None and batch.on_success:
            batch.on_success = with_result(batch.on_success, result)
        if self._advance(batch):
            self._end_member(batch.parent_id)

    def _advance(self, batch: Batch) -> bool:
        """Enqueue the due callbacks of a batch. Return whether to look at the batch around it."""
        found = self.counts(batch.pk)
        is_active, has_failed = (any(found[one] for one in states) for states in (_ACTIVE, UNSUCCESSFUL))
        is_due = due_callbacks(is_active, found["total"] - found["succeeded"], has_failed)
        for name, due in zip(("success", "failure", "complete"), is_due, strict=True):
            text = getattr(batch, f"on_{name}")
            if due and text is not None and getattr(batch, f"{name}_id") is None:
                setattr(batch, f"{name}_id", self._call_back(text, batch))
        if not is_active:
            batch.finished_at = batch.finished_at or as_datetime(now())
        return has_failed or not is_active

    def _call_back(self, text: str, batch: Batch) -> Any:
        call, then = callback_of(text, as_datetime(now()) - batch.created_at)
        if call is None:
            return 0
        if then is None and batch.parent_id is None:
            return self.enqueue(call)[0]
        plan = Plan(
            None if then else batch.parent_id, "", (then, None, None), bool(then), [(call, None, None)]
        )
        made = self._write(plan, batch.parent_id)
        for batch_id in made if then else ():
            self._batches[batch_id].created_at = batch.created_at
        return plan.written[0][0]
