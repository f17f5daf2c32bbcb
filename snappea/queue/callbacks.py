"""What follows the end of a batch's members, in the transaction that settles them.

Of a batch, only `total` and `succeeded` are counted as it happens. Everything else follows from the rows of
the members: those that wait, run or have failed still have one, and a member that is gone without success was
cancelled, deleted or has expired.
"""

import heapq
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from logging import ERROR
from typing import TypeAlias

from ..log import say
from .clock import as_datetime, later
from .database import RawConnection
from .dialects import PHRASES, statement
from .records import Call, Extras, Outcome, UniqueRule

#: Writes a task in the caller's transaction: `store.insert()`.
Insert: TypeAlias = Callable[[RawConnection, Call, str], tuple[int, bool]]

#: A batch, `{}`, and those in it.
FAMILY = """WITH RECURSIVE family (id) AS (
        SELECT {}
        UNION SELECT child.id FROM snappea_batch AS child, family
            WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL)"""
PHRASES |= {
    "HAS_ACTIVE": """(EXISTS (SELECT 1 FROM snappea_task WHERE batch_id = snappea_batch.id
            AND batch_id IS NOT NULL AND status IN ('ready', 'scheduled', 'running'))
        OR EXISTS (SELECT 1 FROM snappea_batch AS child WHERE child.parent_id = snappea_batch.id
            AND child.parent_id IS NOT NULL AND child.finished_at IS NULL))""",
    "FAMILY": FAMILY.format("CAST(? AS bigint)"),
}
ADD = "UPDATE snappea_batch SET total = total + ? WHERE id = ?"
#: Two last members may be settled at once by two Foremen: the second one waits here, and then sees the first.
COUNT = "UPDATE snappea_batch SET succeeded = succeeded + ? WHERE id = ? RETURNING parent_id"
#: Whether members are left, how many have not succeeded, whether one has failed, and the callbacks to come.
STATE = statement("""
    {FAMILY}
    SELECT {HAS_ACTIVE},
        (SELECT sum(total - succeeded) FROM snappea_batch WHERE id IN (SELECT id FROM family)),
        EXISTS (SELECT 1 FROM snappea_task WHERE batch_id IN (SELECT id FROM family)
            AND batch_id IS NOT NULL AND status IN ('failed', 'interrupted', 'cancelled')),
        {untyped}finished_at, parent_id, {untyped}created_at,
        CASE WHEN success_id IS NULL THEN on_success END, CASE WHEN failure_id IS NULL THEN on_failure END,
        CASE WHEN complete_id IS NULL THEN on_complete END
    FROM snappea_batch WHERE id = ?""")
NOTE_SUCCESS = "UPDATE snappea_batch SET success_id = ? WHERE id = ?"
NOTE_FAILURE = "UPDATE snappea_batch SET failure_id = ? WHERE id = ?"
NOTE_COMPLETE = "UPDATE snappea_batch SET complete_id = ? WHERE id = ?"
FINISH = "UPDATE snappea_batch SET finished_at = ? WHERE id = ?"


def settle_outcomes(
    db: RawConnection, moment: str, settled: Iterable[tuple[Outcome, bool]], insert: Insert
) -> None:
    """Count outcomes of members; with each, whether its claim was still valid."""
    ended: dict[int, int] = {}
    for outcome, is_valid in settled:
        batch_id = outcome.claim.extras.batch_id
        if batch_id is not None:
            ended[batch_id] = ended.get(batch_id, 0) + (is_valid and not outcome.error)
    settle(db, moment, ended, insert)


def settle(db: RawConnection, moment: str, ended: Mapping[int, int], insert: Insert) -> None:
    """Enqueue what follows the end of members. `ended`: how many succeeded just now, by batch.

    Call it in the transaction in which members stop waiting or running. A batch has a higher id than the one
    around it, so every transaction locks batches from the highest id down, and none waits in a circle.
    """
    left = [-batch_id for batch_id in ended]
    heapq.heapify(left)
    while left:
        batch_id = -heapq.heappop(left)
        found = db.execute(COUNT, (ended.get(batch_id, 0), batch_id)).fetchall()
        if found and _advance(db, moment, batch_id, insert):
            parent_id = found[0][0]
            if parent_id is not None and -parent_id not in left:
                heapq.heappush(left, -parent_id)


def _advance(db: RawConnection, moment: str, batch_id: int, insert: Insert) -> bool:
    """Enqueue the due callbacks of a locked batch. Return whether to look at the batch around it."""
    is_active, missing, has_failed, finished_at, parent_id, created_at, *callbacks = db.execute(
        STATE, (batch_id, batch_id)
    ).fetchone()
    is_due = not is_active and not missing, has_failed or (not is_active and missing), not is_active
    notes = NOTE_SUCCESS, NOTE_FAILURE, NOTE_COMPLETE
    waited = as_datetime(moment) - as_datetime(created_at)
    for text, due, note in zip(callbacks, is_due, notes, strict=True):
        if text is not None and due:
            call = callback_of(text, waited, parent_id)
            task_id, is_new = insert(db, call, moment) if call else (0, False)
            db.execute(note, (task_id, batch_id))
            if parent_id is not None and is_new:
                db.execute(ADD, (1, parent_id))
    if not is_active and finished_at is None:
        db.execute(FINISH, (moment, batch_id))
    return bool(has_failed or not is_active)


def callback_of(text: str, waited: timedelta, parent_id: int | None) -> Call | None:
    """Return a callback as a member of the batch around its own; None if it is unreadable."""
    try:
        call = unpacked(text)
        extras = call.extras or Extras()
        due, expires_at = (  # they count from now on
            None if value is None else later(value, waited.total_seconds())
            for value in (extras.run_after, extras.expires_at)
        )
        extras = extras._replace(batch_id=parent_id, run_after=due, expires_at=expires_at)
        return call._replace(extras=extras)
    except (AttributeError, KeyError, ValueError, TypeError) as error:  # the row was written by hand
        say(ERROR, "A callback of a batch cannot be read: %s", error)
        return None


def packed(call: Call) -> str:
    """Return a call as JSON, to enqueue it later."""
    return json.dumps(call._asdict() | {"extras": call.extras and call.extras._asdict()})


def unpacked(text: str) -> Call:
    """Return the call that packed() was given, perhaps by another version."""
    columns = json.loads(text)
    if columns["extras"]:
        extras = {name: value for name, value in columns["extras"].items() if name in Extras._fields}
        rule = extras["unique_rule"]
        extras["unique_rule"] = None if rule is None else UniqueRule(*rule)
        columns["extras"] = Extras(**extras)
    return Call(**columns)
