"""What follows the end of a batch's members, in the transaction that settles them.

A chain is a callback that others follow. It becomes the only member of a new batch, which has the others as
its on_success, so that each call of a chain but the last one has a batch.

Of a batch, only `total` and `succeeded` are counted as it happens. Everything else follows from the rows of
the members: those that wait, run or have failed still have one, and a member that is gone without success was
cancelled, deleted or has expired.
"""

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from logging import ERROR
from types import MappingProxyType
from typing import Any, TypeAlias

from ..log import say
from .clock import as_datetime, later
from .database import RawConnection
from .dialects import PHRASES, statement
from .records import Call, Extras, Outcome, UniqueRule

#: Writes a task in the caller's transaction: `store.insert()`.
Insert: TypeAlias = Callable[[RawConnection, Call, str], tuple[int, bool]]

#: In a packed call: it takes the result of the call before; the calls that follow it.
TAKES_RESULT, THEN = "takes_result", "then"
#: The beginning of such a packed call. `json_extras` looks for it.
AWAITS_RESULT = '{"takes_result"'

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
CREATE = statement("""
    INSERT INTO snappea_batch (
        description, parent_id, on_success, on_failure, on_complete, created_at, total, succeeded)
    VALUES (?, ?, ?, ?, ?, ?, 0, 0) {returning_id}""")
DROP = "DELETE FROM snappea_batch WHERE id = ?"
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
ON_SUCCESS = "SELECT on_success FROM snappea_batch WHERE id = ?"
SET_ON_SUCCESS = "UPDATE snappea_batch SET on_success = ? WHERE id = ?"
FINISH = "UPDATE snappea_batch SET finished_at = ? WHERE id = ?"


def settle_outcomes(
    db: RawConnection, moment: str, settled: Iterable[tuple[Outcome, bool]], insert: Insert
) -> None:
    """Count outcomes of members; with each, whether its claim was still valid."""
    ended: dict[int, int] = {}
    results: dict[int, str] = {}
    for outcome, is_valid in settled:
        extras, has_succeeded = outcome.claim.extras, is_valid and not outcome.error
        if extras.batch_id is not None:
            ended[extras.batch_id] = ended.get(extras.batch_id, 0) + has_succeeded
            if has_succeeded and extras.passes_result:
                results[extras.batch_id] = outcome.result or "null"
    settle(db, moment, ended, insert, results)


def settle(
    db: RawConnection,
    moment: str,
    ended: Mapping[int, int],
    insert: Insert,
    results: Mapping[int, str] = MappingProxyType({}),
) -> None:
    """Enqueue what follows the end of members. `ended`: how many succeeded just now, by batch.

    `results`: what members have returned, as JSON, for the calls that follow.

    Call it in the transaction in which members stop waiting or running. A batch has a higher id than the one
    around it, so every transaction locks batches from the highest id down, and none waits in a circle.
    """
    left = [-batch_id for batch_id in ended]
    heapq.heapify(left)
    while left:
        batch_id = -heapq.heappop(left)
        found = db.execute(COUNT, (ended.get(batch_id, 0), batch_id)).fetchall()
        if found and batch_id in results:
            on_success = db.execute(ON_SUCCESS, (batch_id,)).fetchone()[0]
            db.execute(SET_ON_SUCCESS, (with_result(on_success, results[batch_id]), batch_id))
        if found and _advance(db, moment, batch_id, insert):
            parent_id = found[0][0]
            if parent_id is not None and -parent_id not in left:
                heapq.heappush(left, -parent_id)


def _advance(db: RawConnection, moment: str, batch_id: int, insert: Insert) -> bool:
    """Enqueue the due callbacks of a locked batch. Return whether to look at the batch around it."""
    is_active, missing, has_failed, finished_at, parent_id, created_at, *callbacks = db.execute(
        STATE, (batch_id, batch_id)
    ).fetchone()
    is_due = due_callbacks(is_active, missing, has_failed)
    notes = NOTE_SUCCESS, NOTE_FAILURE, NOTE_COMPLETE
    for text, due, note in zip(callbacks, is_due, notes, strict=True):
        if text is not None and due:
            db.execute(note, (_call_back(db, moment, text, created_at, parent_id, insert), batch_id))
    if not is_active and finished_at is None:
        db.execute(FINISH, (moment, batch_id))
    return bool(has_failed or not is_active)


def due_callbacks(is_active: bool, missing: int, has_failed: bool) -> tuple[bool, bool, bool]:
    """Return whether on_success, on_failure and on_complete are due. `missing`: members without success."""
    is_missing = missing > 0  # a member that is kept may succeed twice
    return not is_active and not is_missing, has_failed or (not is_active and is_missing), not is_active


def _call_back(
    db: RawConnection, moment: str, text: str, created_at: str, parent_id: int | None, insert: Insert
) -> int:
    """Enqueue a callback in the batch around its own. Return its id; 0 if it is unreadable."""
    call, then = callback_of(text, as_datetime(moment) - as_datetime(created_at))
    if call is None:
        return 0
    batch_id = parent_id
    if then:  # its times count from the same moment
        batch_id = int(db.execute(CREATE, ("", parent_id, then, None, None, created_at)).lastrowid)
    task_id, is_new = insert(db, of_batch(call, batch_id), moment)
    if batch_id is not None and is_new:
        db.execute(ADD, (1, batch_id))
    elif then:  # it was discarded, and so is what follows
        db.execute(DROP, (batch_id,))
    return task_id


def of_batch(call: Call, batch_id: int | None) -> Call:
    """Return a call as a member of a batch."""
    return call._replace(extras=(call.extras or Extras())._replace(batch_id=batch_id))


def callback_of(text: str, waited: timedelta) -> tuple[Call | None, str | None]:
    """Return a callback, and what follows it, packed; None and None if it is unreadable."""
    try:
        call, then = unpacked(text)
        extras = call.extras or Extras()
        due, expires_at = (  # they count from now on
            None if value is None else later(value, waited.total_seconds())
            for value in (extras.run_after, extras.expires_at)
        )
        return call._replace(extras=extras._replace(run_after=due, expires_at=expires_at)), then
    except (AttributeError, KeyError, ValueError, TypeError) as error:  # the row was written by hand
        say(ERROR, "A callback of a batch cannot be read: %s", error)
        return None, None


def packed(call: Call, then: str | None = None, takes_result: bool = False) -> str:
    """Return a call as JSON, to enqueue it later. `then`: what follows it, packed.

    `takes_result`: it has None as its first argument, in place of the result of the call before.
    """
    columns: dict[str, Any] = {TAKES_RESULT: True} if takes_result else {}
    columns |= call._asdict() | {"extras": call.extras and call.extras._asdict()}
    if then:
        following = json.loads(then)
        columns[THEN] = [following, *following.pop(THEN, [])]
    return json.dumps(columns)


def with_result(text: str, result: str) -> str:
    """Return a packed call with the result that it takes, as JSON; if it takes none, unchanged."""
    if not text.startswith(AWAITS_RESULT):
        return text
    columns = json.loads(text)
    del columns[TAKES_RESULT]
    columns["args"] = f"[{result}{columns['args'].removeprefix('[null')}"
    return json.dumps(columns)


def calls_of(text: str) -> Iterator[Call]:
    """Yield a packed call, and those that follow it."""
    then: str | None = text
    while then:
        call, then = unpacked(then)
        yield call


def unpacked(text: str) -> tuple[Call, str | None]:
    """Return the call that packed() was given, perhaps by another version, and what follows it, packed."""
    columns = json.loads(text)
    columns.pop(TAKES_RESULT, None)
    then = None
    if following := columns.pop(THEN, []):
        first, *others = following
        then = json.dumps(first | {THEN: others} if others else first)
    if columns["extras"]:
        extras = {name: value for name, value in columns["extras"].items() if name in Extras._fields}
        rule = extras["unique_rule"]
        extras["unique_rule"] = None if rule is None else UniqueRule(*rule)
        columns["extras"] = Extras(**extras)
    return Call(**columns), then
