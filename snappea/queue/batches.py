"""Batches: their rows, and what users can ask of them. `callbacks.py` has what follows their end."""

from collections.abc import Collection, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from django.db.transaction import atomic

from ..errors import refuse_event_loop
from . import store
from .callbacks import ADD, CREATE, DROP, of_batch
from .clock import later, now
from .database import (
    UNUSABLE,
    RawConnection,
    connect,
    delete_old,
    is_left_behind,
    raw,
    ring_on_commit,
    transact,
)
from .dialects import statement
from .records import Call
from .refusals import refusal
from .states import Status

#: How long a finished batch is kept, in seconds.
KEPT_FOR = 7 * 86400
#: The most batches that are finished at once.
AT_ONCE = 1000

#: More members are about to be enqueued. The same for all batches around it, from the innermost.
REOPEN = "UPDATE snappea_batch SET finished_at = NULL WHERE id = ? RETURNING parent_id"
DROP_SUCCESS = statement("""
    {FAMILY} UPDATE snappea_batch SET on_success = NULL WHERE id IN (SELECT id FROM family)""")
#: Its members with each status. `one`: its row.
MEMBERS = {
    status: f"snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = '{status}'"
    for status in Status
}
#: The numbers of a batch, with those in it, by name. An index counts the members with each status.
COUNTED = {"total": "total", "succeeded": "succeeded"} | {
    status.value: f"(SELECT count(*) FROM {members})" for status, members in MEMBERS.items()
}
COUNTS = statement(f"""
    {{FAMILY}} SELECT {", ".join(f"sum({what})" for what in COUNTED.values())}
    FROM snappea_batch AS one JOIN family USING (id)""")
FAMILY_OF = statement("{FAMILY} SELECT id FROM family")
#: Batches that nothing has finished: their last members were deleted by hand, or by a process that died.
ENDED = statement("""
    SELECT id FROM snappea_batch WHERE finished_at IS NULL AND NOT {HAS_ACTIVE} LIMIT ?""")
OLD = "SELECT 1 FROM snappea_batch WHERE finished_at <= ? LIMIT 1"
#: Without EXISTS, of which PostgreSQL would make a join with all members.
PURGE = statement("""
    DELETE FROM snappea_batch WHERE id {among}(
        SELECT id FROM snappea_batch WHERE finished_at <= ?
            AND (SELECT id FROM snappea_task
                WHERE batch_id = snappea_batch.id AND batch_id IS NOT NULL LIMIT 1) IS NULL
            AND (SELECT id FROM snappea_batch AS outer_batch
                WHERE outer_batch.id = snappea_batch.parent_id) IS NULL
        ORDER BY finished_at LIMIT ? {skip_locked}){end}""")


@dataclass
class Plan:
    """What to write of a batch: a new one, or more members for one that exists (`id`)."""

    id: int | None = None
    description: str = ""
    #: The packed calls for success, failure and completion.
    callbacks: tuple[str | None, str | None, str | None] = (None, None, None)
    #: Whether its only call begins a chain: if that is discarded, so is what follows.
    is_chain: bool = False
    #: The calls, each with its task and its result.
    members: list[tuple[Call, Any, Any]] = field(default_factory=list)
    #: The batches in it.
    parts: list["Plan"] = field(default_factory=list)
    #: What `store.enqueue()` returns for each call, once it is written.
    written: list[tuple[int, bool]] = field(default_factory=list)

    def family(self) -> Iterable["Plan"]:
        """Yield it and the batches in it."""
        yield self
        for part in self.parts:
            yield from part.family()


def enqueue(plan: Plan) -> None:
    """Write a batch and its members in one transaction, and wake the Foreman after the commit.

    Raises EnqueueError if the database refuses, AlreadyEnqueued, or LookupError if the batch to add to does
    not exist any more. Then nothing was written.
    """
    try:
        connection = connect()
        whole = atomic(connection.alias) if connection.in_atomic_block else nullcontext()  # a savepoint
        with connection.wrap_database_errors, whole, transact(connection) as db:
            moment = now(connection)
            ids = _written(db, plan, moment, None)
            store.end_members(db, ids)  # some may be empty
    except UNUSABLE as error:
        if is_left_behind(error):
            return enqueue(plan)
        raise refusal(error, "The batch") from error
    ring_on_commit(connection)


def _written(db: RawConnection, plan: Plan, moment: str, parent_id: int | None) -> list[int]:
    if plan.id is None:
        columns = plan.description, parent_id, *plan.callbacks, moment
        batch_id = int(db.execute(CREATE, columns).lastrowid)
    else:
        batch_id = plan.id
        reopen(db, [batch_id])
    plan.written = [store.insert_or_raise(db, of_batch(call, batch_id), moment) for call, *_ in plan.members]
    added = sum(is_new for _task_id, is_new in plan.written)
    if added and not db.execute(ADD, (added, batch_id)).rowcount:
        raise LookupError(f"Batch {batch_id} does not exist any more.")
    if plan.is_chain and not added:
        db.execute(DROP, (batch_id,))
        return []
    plan.id = batch_id
    return [batch_id, *(one for part in plan.parts for one in _written(db, part, moment, batch_id))]


def reopen(db: RawConnection, batch_ids: Collection[int]) -> None:
    """Note that members of these batches are about to wait again."""
    for batch_id in sorted(batch_ids, reverse=True):
        around: int | None = batch_id
        while around is not None:
            found = db.execute(REOPEN, (around,)).fetchall()
            around = found[0][0] if found else None


def end(batch_ids: Iterable[int | None]) -> None:
    """Enqueue what follows the end of members that were deleted."""
    if members := {*batch_ids} - {None}:
        with transact(connect()) as db:
            store.end_members(db, members)
        ring_on_commit(connect())


def forget(db: RawConnection, moment: str) -> bool:
    """Delete batches that finished long ago, and finish those that nothing has finished.

    Returns whether there may be more.
    """
    end([batch_id for (batch_id,) in db.execute(ENDED, (AT_ONCE,)).fetchall()])
    return delete_old(db, OLD, PURGE, later(moment, -KEPT_FOR))


# for users


def counts(batch_id: int) -> dict[str, int]:
    """Return the numbers in COUNTED. Raises LookupError if there is no such batch."""
    refuse_event_loop("queue")
    found = raw(connect()).execute(COUNTS, (batch_id,)).fetchone()
    if found[0] is None:
        raise LookupError(f"Batch {batch_id} does not exist any more.")
    return dict(zip(COUNTED, map(int, found), strict=True))


def family(batch_id: int) -> list[int]:
    """Return the ids of a batch and of those in it."""
    return [one for (one,) in raw(connect()).execute(FAMILY_OF, (batch_id,)).fetchall()]


def drop_success(batch_id: int) -> None:
    """Let a batch and those in it have no on_success."""
    with connect().wrap_database_errors, transact(connect()) as db:
        db.execute(DROP_SUCCESS, (batch_id,))
