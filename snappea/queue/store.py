"""Every write to a Task row, in the order of a task's life; what people decide is in `decisions.py`.

The hot path is plain SQL on the sqlite3 connection beneath Django's; `statements.py` has it all.
"""

import heapq
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.db.models.signals import post_save, pre_save
from django.dispatch import receiver

from ..conf import current
from ..errors import EnqueueError
from ..models import Gate, Status, Task
from . import statements as sql
from .clock import later, now
from .database import UNUSABLE, RawConnection, connect, is_left_behind, raw, transact
from .records import (
    Call,
    Claim,
    Expired,
    Extras,
    Fence,
    Outcome,
    Peek,
    Progress,
    Recovered,
    Unusable,
    error_line,
)
from .wakeup import ring_on_commit

if TYPE_CHECKING:
    from .logbook import Entry, Note

#: How many rows a round promotes, expires, sorts in: so that 100,000 of them do not stall it.
AT_ONCE = 1000
#: How often to try when an identical call ends in this moment, which cannot happen on SQLite.
TRIES = 100
#: From how many tasks on it is faster to settle them together.
SEVERAL = 8
#: As SQLite takes them at once, which it does not for members of an enumeration.
OPEN, NEW = Gate.OPEN.value, Gate.NEW.value
READY, SCHEDULED = Status.READY.value, Status.SCHEDULED.value


# enqueue


def enqueue(call: Call, moment: str | None = None) -> tuple[int, bool]:
    """Write a task, and wake the Foreman once it is committed. `moment`: the time, if it is known.

    Returns the task's id, and whether it is new: False for a unique call that was enqueued before.
    Raises EnqueueError if the database refuses; then nothing was written.
    """
    try:
        connection = connect()
        with connection.wrap_database_errors:
            if call.extras is None:
                written = raw(connection).execute(sql.INSERT, (*call[:-1], now(connection)))
                task_id, is_new = written.lastrowid, True
            elif call.extras.unique_key is None:  # one statement: no transaction
                task_id, is_new = insert(raw(connection), call, moment or now(connection))
            else:
                with transact(connection) as db:
                    task_id, is_new = insert(db, call, moment or now(connection))
    except UNUSABLE as error:
        if is_left_behind(error):
            return enqueue(call, moment)
        raise _refusal(error, call.task_name) from error
    if is_new:
        ring_on_commit(connection)
    return task_id, is_new


def enqueue_many(calls: Sequence[Call]) -> list[tuple[int, bool]]:
    """Do as `enqueue()` for many calls, in one transaction and with one wakeup."""
    if not calls:
        return []
    try:
        connection = connect()
        with connection.wrap_database_errors, transact(connection) as db:
            moment = now(connection)
            if any(call.extras for call in calls):
                written = [insert(db, call, moment) for call in calls]
            else:
                written = [(task_id, True) for task_id in _insert_plain(db, calls, moment)]
    except UNUSABLE as error:
        if is_left_behind(error):
            return enqueue_many(calls)
        raise _refusal(error, calls[0].task_name) from error
    ring_on_commit(connection)
    return written


def _insert_plain(db: RawConnection, calls: Sequence[Call], moment: str) -> Iterable[int]:
    if isinstance(db, sqlite3.Connection):
        db.executemany(sql.INSERT, ((*call[:-1], moment) for call in calls))
        # ids grow by one within a write transaction: nobody else writes
        last: int = db.execute("SELECT last_insert_rowid()").fetchone()[0]
        return range(last - len(calls) + 1, last + 1)
    columns = zip(*(call[:-1] for call in calls), strict=True)
    rows = db.execute(sql.INSERT_MANY, (moment, *map(list, columns))).fetchall()
    return sorted(task_id for (task_id,) in rows)


def insert(db: RawConnection, call: Call, moment: str) -> tuple[int, bool]:
    """Do as `enqueue()` in a transaction of the caller's, who also wakes the Foreman."""
    extras = call.extras or Extras()
    status = SCHEDULED if (extras.run_after or "") > moment else READY
    gate = OPEN if extras.lane is None else NEW
    for _ in range(TRIES):
        written = db.execute(sql.INSERT_MORE, (*call[:-1], moment, status, gate, *extras))
        if written.rowcount:
            return written.lastrowid, True
        if found := db.execute(sql.IDENTICAL, (extras.unique_key,) * 2).fetchone():
            return found[0], False
    raise EnqueueError(
        f"{call.task_name} was not enqueued: an identical call is in the way, but cannot be seen."
    )


def _refusal(error: Exception, task_name: str) -> EnqueueError:
    from .availability import explain

    found, said = explain(error), str(error)
    # a connection that breaks during a commit leaves nobody knowing
    written = "Perhaps it was, all the same" if "closed the connection" in said else "Nothing was written"
    words = said.partition("\n")[0].rstrip(".")
    what = found.what if words in found.what else f"{found.what}: {words}"
    message = f"{task_name} was not enqueued: {what} ({found.cure}). {written}."
    return EnqueueError(message, found.what, found.cure)


@receiver(pre_save, sender=Task)
def _set_gate(*, instance: Task, **kwargs: Any) -> None:
    """Have a row that is made by hand sorted into its lane."""
    if instance._state.adding:
        instance.gate = Gate.NEW if instance.lane else Gate.OPEN


@receiver(post_save, sender=Task)
def _ring_for_row(*, using: str, **kwargs: Any) -> None:
    """Make `Task.objects.create(...)` wake the Foreman as `delay()` does."""
    if using == current().DATABASE:
        ring_on_commit(connect())


# the Foreman's round


def promote(db: RawConnection, moment: str) -> int:
    """Make scheduled tasks that are due ready, and return how many; a round takes only so many."""
    return db.execute(sql.PROMOTE, (moment, AT_ONCE)).rowcount


def expire(db: RawConnection, moment: str) -> list[Expired]:
    """Delete waiting tasks that are not worth running any more, and results that were kept long enough."""
    expired = list(map(Expired._make, db.execute(sql.EXPIRE, (moment, AT_ONCE)).fetchall()))
    db.executemany(
        sql.NOTE_GONE, [("expired", task.id) for task in expired if task.status != Status.SUCCESSFUL]
    )
    return expired


def expire_claimed(db: RawConnection, claims: Iterable[Claim]) -> list[Expired]:
    """Delete tasks that were claimed just now, and had expired by then."""
    expired = []
    for claim in claims:
        db.execute(sql.EXPIRE_CLAIMED, claim.fence)
        db.execute(sql.NOTE_GONE, ("expired", claim.id))
        expired.append(Expired(claim.id, claim.task_name, Status.READY, claim.lane))
    return expired


def peek(db: RawConnection) -> Peek:
    """Tell what there is to do."""
    return Peek._make(db.execute(sql.PEEK).fetchone())


def waiting_queues(db: RawConnection, is_async: bool = False) -> list[str]:
    """Return the queues in which tasks wait that may be claimed: for a thread, or for the event loop."""
    return [name for (name,) in db.execute(sql.QUEUES, (is_async, is_async)).fetchall()]


def claim(
    db: RawConnection,
    moment: str,
    limit: int,
    shares: Mapping[str, int],
    in_order: bool = False,
    is_async: bool = False,
) -> list[Claim]:
    """Claim up to `limit` ready tasks for the Foreman: the most urgent, then the oldest.

    `shares`: from which queues, and how many at most from each. `in_order`: all that can be had of
    the first one before any of the second. `is_async`: those for the event loop, not for a thread.
    """
    if in_order or len(shares) < 2:
        claims: list[Claim] = []
        for name, share in shares.items():
            room = min(share, limit - len(claims))
            found = db.execute(sql.CLAIM, (moment, is_async, name, name, room)).fetchall()
            claims += sorted(map(Claim._make, found))
        return claims
    shares = {name: min(share, limit) for name, share in shares.items()}
    firsts = [db.execute(sql.FIRST, (is_async, *share)).fetchall() for share in shares.items()]
    ids = [task_id for _order, task_id in islice(heapq.merge(*firsts), limit)]
    return sorted(map(Claim._make, db.execute(sql.CLAIM_THESE, (moment, json.dumps(ids))).fetchall()))


def claim_any(db: RawConnection, moment: str) -> Claim | None:
    """Claim the first of all ready tasks, of whatever queue, kind and lane: for tests."""
    ready = Task.objects.filter(status=Status.READY).order_by("-priority", "pk")
    ids = list(ready.values_list("pk", flat=True)[:1])
    found = db.execute(sql.CLAIM_THESE, (moment, json.dumps(ids))).fetchone()
    return Claim._make(found) if found else None


def give_back(db: RawConnection, claims: Iterable[Claim]) -> None:
    """Make tasks that were claimed but not begun ready again; no attempt is counted.

    A claim that was never committed is left alone.
    """
    db.executemany(sql.GIVE_BACK, [claim.fence for claim in claims])


def settle(db: RawConnection, moment: str, outcomes: Sequence[Outcome]) -> int:
    """Write what became of the claims. Return how many were no longer the Foreman's to settle."""
    done: dict[tuple[int, str | None], list[int]] = {}
    rest = []
    for outcome in outcomes:
        if outcome.error or outcome.result is not None:
            rest.append(outcome)
        else:
            claim = outcome.claim
            done.setdefault((claim.claims, claim.started_at), []).append(claim.id)
    settled = sum(_succeed(db, ids, *rest) for rest, ids in done.items())
    for outcome in rest:
        statement, values = _settlement(outcome, moment)
        settled += db.execute(statement, (*values, *outcome.claim.fence)).rowcount
    return len(outcomes) - settled


def _succeed(db: RawConnection, ids: list[int], claims: int, started_at: str | None) -> int:
    if len(ids) < SEVERAL:
        return db.executemany(sql.SUCCEED, [(task_id, claims, started_at) for task_id in ids]).rowcount
    return db.execute(sql.SUCCEED_ALL, (json.dumps(ids), claims, started_at)).rowcount


def _settlement(outcome: Outcome, moment: str) -> tuple[str, tuple[object, ...]]:
    """Return the statement that settles an outcome, and its values before the fence."""
    claim, error = outcome.claim, outcome.error
    if not error:
        return sql.KEEP, (moment, outcome.result, later(moment, claim.result_ttl or 0))
    line = outcome.error_line(moment)
    if outcome.is_revoked:
        return sql.TERMINATE, (moment, error, line)
    run_after = None if outcome.retry_after is None else later(moment, outcome.retry_after)
    if run_after is not None and (claim.expires_at is None or run_after < claim.expires_at):
        return sql.RETRY, (run_after, error, line)
    return sql.FAIL, (moment, *outcome.cause(), error, line)


def note_progress(db: RawConnection, notes: Iterable[Progress]) -> None:
    """Write how far tasks are."""
    db.executemany(sql.PROGRESS, notes)


def revoked(db: RawConnection) -> list[Fence]:
    """Return the fences of the running tasks that are to be ended."""
    return db.execute(sql.REVOKED).fetchall()


def claim_addressed(db: RawConnection, moment: str, limit: int, is_async: bool = False) -> list[Claim]:
    """Claim up to `limit` ready tasks that are for this Foreman only."""
    return sorted(map(Claim._make, db.execute(sql.CLAIM_ADDRESSED, (moment, is_async, limit)).fetchall()))


# lanes: tasks that share a limit. All but the few that may run now wait behind a gate, so that
# those cost the others nothing


def sort_in(db: RawConnection) -> list[str]:
    """Put newcomers behind the gates of their lanes, not too many at once, and return the lane of each."""
    return [lane for (lane,) in db.execute(sql.BLOCK_NEW, (AT_ONCE,)).fetchall()]


def stir_all(db: RawConnection) -> None:
    """Have all lanes looked at again."""
    db.execute(sql.RECHECK_ALL)


def admit(db: RawConnection, lane: str, queues: Sequence[str] = ()) -> None:
    """Open the gate for as many of a lane as its limit allows; for one at a time, if it has a rate.

    Only for those in the given queues, if there are any.
    """
    served = json.dumps(queues) if queues else None
    found = db.execute(sql.NEXT_IN_GROUP, (lane, served, served)).fetchone()
    if found is None:
        return
    limit, interval, priority = found
    taken = dict(db.execute(sql.TAKEN, (lane,)).fetchall())
    if Status.READY in taken:
        yielded = db.execute(sql.YIELD, (lane, priority, served, served)).rowcount
        taken[Status.READY] -= yielded
    room = AT_ONCE if limit is None else limit - sum(taken.values())
    if interval is not None:
        room = min(room, 1 - taken.get(Status.READY, 0))
    if room > 0:
        db.execute(sql.ADMIT, (lane, served, served, room))


# the end of a Foreman


def interrupt(db: RawConnection, moment: str, fence: Fence, why: str) -> str | None:
    """Settle a task that was cut off: ready again if it may be repeated, otherwise kept.

    Returns its new status, None if it was not running under that claim.
    """
    limit = current().MAX_INTERRUPTIONS
    line = error_line(moment, why)
    found = db.execute(sql.INTERRUPT, (limit, moment, why, line, *fence)).fetchall()
    return found[0][0] if found else None


def recover(db: RawConnection, moment: str, notes: "Mapping[Entry, Note] | None") -> list[Recovered]:
    """Settle what a dead Foreman left running, by the notes in its logbook.

    A claim is noted before it is committed: a task without a note of its own may have begun.
    """
    from .logbook import Entry, Note

    recovered = []
    for *fence, name in db.execute(sql.RUNNING).fetchall():
        note = (notes or {}).get(Entry.of(*fence), Note.BEGUN)
        recovered.append(Recovered(fence[0], name, *_recover(db, moment, tuple(fence), note)))
    stir_all(db)
    return recovered


def _recover(db: RawConnection, moment: str, fence: Fence, note: "Note") -> tuple[str, str | None]:
    """Settle one of them. Return what became of it, and its status if it was interrupted."""
    from .logbook import Note

    lost = "the Foreman died before the {} was written."
    if note is Note.CLAIMED:
        db.execute(sql.GIVE_BACK, fence)
        return "never begun", None
    if note is Note.SUCCEEDED:
        kept = db.execute(
            sql.KEEP_WITHOUT_RESULT, (moment, moment, f"It succeeded; {lost.format('result')}", *fence)
        )
        if not kept.rowcount:
            db.execute(sql.SUCCEED, fence)
        return "succeeded", None
    if note is Note.FAILED or note is Note.TO_RETRY:
        error = f"It raised; {lost.format('traceback')}"
        statement = sql.FAIL if note is Note.FAILED else sql.RETRY
        cause = ("", "") if note is Note.FAILED else ()
        db.execute(statement, (moment, *cause, error, error_line(moment, error), *fence))
        return ("failed" if note is Note.FAILED else "to be tried again"), None
    status = interrupt(db, moment, fence, "The Foreman died while this task ran.")
    return ("interrupted, to run again" if status == Status.READY else "interrupted"), status


def set_aside(db: RawConnection, moment: str, row: Unusable) -> None:
    """Settle a row that nobody can work with."""
    ours = ("status", "finished_at", "exception", "place", "error")
    instead = {column: value for column, value in row.instead.items() if column not in ours}
    repairs = "".join(f", {column} = ?" for column in instead)
    db.execute(sql.SET_ASIDE.format(repairs=repairs), (moment, row.why, *instead.values(), row.id))


def depth(db: RawConnection) -> int:
    """Return how many tasks are ready."""
    count: int = db.execute(sql.DEPTH).fetchone()[0]
    return count
