"""Every write to a task's row from `enqueue()` to its outcome. Operations of users are in `operations.py`.

It runs the SQL of `statements.py` on the connection beneath Django's.
"""

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from django.db.models.signals import post_save, pre_save
from django.dispatch import receiver

from ..conf import current
from ..errors import AlreadyEnqueued, EnqueueError, refuse_event_loop
from ..models import Gate, Status, Task
from . import statements as sql
from .clock import later, now
from .database import UNUSABLE, RawConnection, connect, is_left_behind, raw, ring_on_commit, transact, writing
from .records import (
    Alike,
    Call,
    Claim,
    Expired,
    Extras,
    Fence,
    Outcome,
    Peek,
    Progress,
    Unusable,
    added,
    error_line,
)
from .refusals import refusal
from .states import waiting_state

#: The most rows that a round promotes, so that 100,000 of them do not stall it.
AT_ONCE = 1000
#: The most rows that a round expires, in a millisecond.
EXPIRE_AT_ONCE = 100
#: How often to retry if an identical call ends at that moment, which cannot happen on SQLite.
TRIES = 100
#: From how many tasks on it is faster to settle them together.
SEVERAL = 8


# enqueue


def enqueue(call: Call, moment: str | None = None) -> tuple[int, bool]:
    """Write a task, and wake the Foreman after the commit. `moment`: the current time, if known.

    Returns the task's id, and False if it belongs to an identical unique call that was enqueued before.
    Raises EnqueueError if the database refuses, or AlreadyEnqueued; then nothing was written.
    """
    try:
        connection = connect()
        with connection.wrap_database_errors:
            if call.extras is None:
                with writing(connection) as db:
                    written = db.execute(sql.INSERT, (*call[:-1], now(connection)))
                task_id, is_new = written.lastrowid, True
            elif call.extras.unique_key is None:  # one statement: no transaction
                with writing(connection) as db:
                    task_id, is_new = insert(db, call, moment or now(connection))
            else:
                with transact(connection) as db:
                    task_id, is_new = insert_or_raise(db, call, moment or now(connection))
    except UNUSABLE as error:
        if is_left_behind(error):
            return enqueue(call, moment)
        raise refusal(error, call.task_name) from error
    if is_new or (call.extras and call.extras.unique_rule):  # it may have been replaced
        ring_on_commit(connection)
    return task_id, is_new


def enqueue_many(calls: Sequence[Call]) -> list[tuple[int, bool]]:
    """Enqueue many calls in one transaction, with one wakeup. Return what `enqueue()` does for each."""
    if not calls:
        return []
    try:
        connection = connect()
        with connection.wrap_database_errors, transact(connection) as db:
            moment = now(connection)
            if not isinstance(calls, Alike) and any(call.extras for call in calls):
                from . import unique  # rarely needed

                with unique.all_or_none(connection, calls):
                    written = [insert_or_raise(db, call, moment) for call in calls]
            else:
                from .bulk import insert_plain

                written = [(task_id, True) for task_id in insert_plain(db, calls, moment)]
    except UNUSABLE as error:
        if is_left_behind(error):
            return enqueue_many(calls)
        raise refusal(error, calls[0].task_name) from error
    ring_on_commit(connection)
    return written


def insert(db: RawConnection, call: Call, moment: str) -> tuple[int, bool]:
    """Write a task in the caller's transaction, without a wakeup. Return what `enqueue()` does."""
    extras = call.extras or Extras()
    state = waiting_state(extras.run_after, extras.lane, extras.fair_key, moment)
    rule = extras.unique_rule
    if rule:
        from . import unique  # rarely needed

    for _ in range(TRIES):
        if rule and (earlier := unique.earlier(db, call, extras, rule, moment)):
            return earlier, False
        written = db.execute(sql.INSERT_MORE, (*call[:-1], moment, *state, *extras[:-1]))
        if written.rowcount:
            task_id: int = written.lastrowid
            if not rule or unique.hold(db, extras, rule, task_id, moment):
                return task_id, True
            db.execute(sql.CANCEL, (task_id,))
        elif rule and rule.on_conflict == "replace":  # PostgreSQL, for the same reason
            continue
        elif found := db.execute(sql.IDENTICAL, (extras.unique_key,) * 2).fetchone():
            return found[0], False
    raise EnqueueError(
        f"{call.task_name} was not enqueued: an identical call blocks it, but cannot be found."
    )


def insert_or_raise(db: RawConnection, call: Call, moment: str) -> tuple[int, bool]:
    """Do the same. Raises AlreadyEnqueued if the rule of a unique call says so."""
    task_id, is_new = insert(db, call, moment)
    rule = call.extras.unique_rule if call.extras else None
    if rule and rule.on_conflict == "raise" and not is_new:
        raise AlreadyEnqueued(call.task_name, task_id)
    return task_id, is_new


@receiver(pre_save, sender=Task)
def _set_gate(*, instance: Task, **kwargs: Any) -> None:
    """Make a row from `Task.objects.create()` join its concurrency group, and the line of its key."""
    if instance._state.adding:
        instance.gate = Gate.NEW if instance.lane or instance.fair_key is not None else Gate.OPEN


@receiver(post_save, sender=Task)
def _ring_for_row(*, using: str, **kwargs: Any) -> None:
    """Make `Task.objects.create()` wake the Foreman, as `delay()` does."""
    if using == current().DATABASE:
        ring_on_commit(connect())


# the Foreman's round


def peek(db: RawConnection) -> Peek:
    """Return what there is to do."""
    return Peek._make(db.execute(sql.PEEK).fetchone())


def promote(db: RawConnection, moment: str) -> int:
    """Make due tasks ready; return how many."""
    return db.execute(sql.PROMOTE, (moment, AT_ONCE)).rowcount


def expire(db: RawConnection, moment: str) -> list[Expired]:
    """Delete expired waiting tasks and expired results."""
    expired = list(map(Expired._make, db.execute(sql.EXPIRE, (moment, EXPIRE_AT_ONCE)).fetchall()))
    note_gone(db, [task for task in expired if task.status != Status.SUCCESSFUL], "expired")
    return expired


def expire_claimed(db: RawConnection, claims: Iterable[Claim]) -> list[Expired]:
    """Delete tasks that had expired when they were claimed."""
    expired = []
    for claim in claims:
        db.execute(sql.EXPIRE_CLAIMED, claim.fence)
        batch_id = claim.extras.batch_id
        expired.append(Expired(claim.id, claim.task_name, Status.READY, claim.lane, batch_id))
    note_gone(db, expired, "expired")
    return expired


def note_gone(db: RawConnection, tasks: Sequence[Expired], what: str) -> None:
    """Tell the schedules and the batches of tasks that were deleted before they ran."""
    for note in sql.NOTE_GONE:
        db.executemany(note, [(what, task.id) for task in tasks])
    end_members(db, [task.batch_id for task in tasks])


def unconfirmed_pauses(db: RawConnection) -> list[tuple[str, str]]:
    """Return queue and time of each pause that this Foreman has not confirmed."""
    return db.execute(sql.UNHEARD).fetchall()


def confirm_pause(db: RawConnection, queue: str, since: str) -> None:
    """Confirm a pause: this Foreman starts no more tasks of that queue."""
    db.execute(sql.CONFIRM, (queue, since))


def waiting_queues(db: RawConnection, is_async: bool = False) -> list[str]:
    """Return the queues with claimable tasks for a thread, or for the event loop."""
    return [name for (name,) in db.execute(sql.QUEUES, (is_async, is_async)).fetchall()]


def claim(
    db: RawConnection,
    moment: str,
    limit: int,
    shares: Mapping[str, int],
    in_order: bool = False,
    is_async: bool = False,
) -> list[Claim]:
    """Claim up to `limit` ready tasks, by priority, then the oldest first.

    `shares`: the queues, and the most to claim from each. `in_order`: empty each queue before the next.
    `is_async`: tasks for the event loop, not for a thread.
    """
    if len(shares) > 1 and not in_order:
        # only counted: each claim skips what other Foremen have locked, and locks no more than it takes
        first = Counter(line(db, limit, shares, is_async=is_async).values())
        claims = claim(db, moment, limit, first, True, is_async)
        if len(claims) < first.total():  # another Foreman was faster
            own = Counter(claim.queue for claim in claims)
            left = {name: share - own[name] for name, share in shares.items()}
            claims += claim(db, moment, limit - len(claims), left, True, is_async)
        return sorted(claims)
    claims = []
    for name, share in shares.items():
        room = min(share, limit - len(claims))
        claims += _claimed(db, sql.CLAIM, moment, is_async, name, name, room)
    return claims


def line(
    db: RawConnection, limit: int, shares: Mapping[str, int], in_order: bool = False, is_async: bool = False
) -> dict[int, str]:
    """Return the ids of the tasks that claim() takes, in their order, each with its queue."""
    firsts = [
        db.execute(sql.FIRST, (is_async, name, min(share, limit))).fetchall()
        for name, share in shares.items()
    ]
    # each list is in the order of its queue; of their first tasks, the most urgent and oldest comes next
    merged = chain.from_iterable(firsts) if in_order else heapq.merge(*firsts)
    return {task_id: queue for _order, task_id, queue in islice(merged, limit)}


def claim_addressed(db: RawConnection, moment: str, limit: int, is_async: bool = False) -> list[Claim]:
    """Claim up to `limit` ready tasks that only this Foreman may run."""
    return _claimed(db, sql.CLAIM_ADDRESSED, moment, is_async, limit)


def claim_any(db: RawConnection, moment: str) -> Claim | None:
    """Claim the first ready task of any queue, kind and concurrency group, for tests."""
    ready = Task.objects.filter(status=Status.READY).order_by("-priority", "pk")
    ids = list(ready.values_list("pk", flat=True)[:1])
    return next(iter(_claimed(db, sql.CLAIM_THESE, moment, json.dumps(ids))), None)


def _claimed(db: RawConnection, statement: str, *parameters: object) -> list[Claim]:
    return sorted(map(Claim._make, db.execute(statement, parameters).fetchall()))


def give_back(db: RawConnection, claims: Collection[Claim]) -> None:
    """Make claimed tasks that have not begun ready again; the attempt does not count."""
    db.executemany(sql.GIVE_BACK, [claim.fence for claim in claims])
    end_members(db, [claim.extras.batch_id for claim in claims if claim.extras_json])  # if revoked


def settle(db: RawConnection, moment: str, outcomes: Sequence[Outcome]) -> int:
    """Write the outcomes of claims. Return how many claims were no longer valid."""
    done: defaultdict[tuple[int, str | None], list[int]] = defaultdict(list)
    kept: defaultdict[tuple[float, int, str | None], list[int]] = defaultdict(list)
    members: list[tuple[Outcome, bool]] = []
    settled = 0
    for outcome in outcomes:
        claim = outcome.claim
        extras = claim.extras if claim.extras_json else None
        is_member = extras is not None and extras.batch_id is not None
        if outcome.error or outcome.result is not None or is_member:
            statement, values = _settlement(outcome, moment)
            changed = db.execute(statement, (*values, *claim.fence)).rowcount
            settled += changed
            if is_member:
                members.append((outcome, bool(changed)))
        elif extras and extras.result_ttl is not None:
            kept[extras.result_ttl, claim.claims, claim.started_at].append(claim.id)
        else:
            done[claim.claims, claim.started_at].append(claim.id)
    for (claims, started_at), ids in done.items():
        if len(ids) < SEVERAL:
            fences = [(task_id, claims, started_at) for task_id in ids]
            settled += db.executemany(sql.SUCCEED, fences).rowcount
        else:
            settled += db.execute(sql.SUCCEED_ALL, (json.dumps(ids), claims, started_at)).rowcount
    for (ttl, *fence), ids in kept.items():
        settled += db.execute(sql.KEEP_ALL, (moment, later(moment, ttl), json.dumps(ids), *fence)).rowcount
    if members:
        from . import callbacks  # rarely needed

        callbacks.settle_outcomes(db, moment, members, insert)
    return len(outcomes) - settled


def _settlement(outcome: Outcome, moment: str) -> tuple[str, tuple[object, ...]]:
    """Return the statement that settles an outcome, and its parameters before the fence."""
    extras, error = outcome.claim.extras, outcome.error
    if not error and extras.result_ttl is None:
        return sql.SUCCEED, ()
    if not error:
        result = outcome.result if extras.keeps_result else None
        return sql.KEEP, (moment, result, later(moment, extras.result_ttl or 0))
    line = outcome.error_line(moment)
    if outcome.is_revoked:
        return sql.TERMINATE, (moment, error, line)
    run_after = None if outcome.retry_after is None else later(moment, outcome.retry_after)
    if run_after is not None and (extras.expires_at is None or run_after < extras.expires_at):
        return sql.RETRY, (run_after, error, line)
    return sql.FAIL, (moment, *outcome.cause(), error, line)


def end_members(db: RawConnection, batch_ids: Iterable[int | None], succeeded: int = 0) -> None:
    """Enqueue what follows the end of members. `succeeded`: how many of each batch succeeded just now."""
    if ended := {batch_id: succeeded for batch_id in batch_ids if batch_id is not None}:
        from . import callbacks  # rarely needed

        callbacks.settle(db, now(), ended, insert)


def note_progress(db: RawConnection, notes: Iterable[Progress]) -> None:
    """Write the progress that tasks have reported."""
    db.executemany(sql.PROGRESS, notes)


def append_logs(db: RawConnection, logs: Mapping[Fence, str]) -> None:
    """Append what running tasks have logged to their rows."""
    for fence, lines in logs.items():
        for (log,) in db.execute(sql.LOG, fence).fetchall():
            db.execute(sql.SET_LOG, (added(log, lines.split("\n")), *fence))


def revoked(db: RawConnection) -> list[Fence]:
    """Return the fences of running tasks that are to be terminated."""
    return db.execute(sql.REVOKED).fetchall()


# concurrency groups: ready tasks that may not run yet are blocked, so that they cost other tasks nothing


def recheck_groups(db: RawConnection) -> None:
    """Make the Foreman check all concurrency groups again."""
    db.execute(sql.RECHECK_ALL)


# the end of a Foreman


def interrupt(db: RawConnection, moment: str, fence: Fence, why: str) -> str | None:
    """Settle an interrupted task: ready again if it may be repeated, otherwise kept.

    Returns its new status; None if the claim was no longer valid.
    """
    values = (current().MAX_INTERRUPTIONS, moment, why, error_line(moment, why))
    found = db.execute(sql.INTERRUPT, (*values, *fence)).fetchall()
    if not found:
        return None
    status: str
    status, batch_id = found[0]
    end_members(db, [batch_id])
    return status


def set_aside(db: RawConnection, moment: str, row: Unusable) -> None:
    """Settle a row with invalid values."""
    ours = ("status", "finished_at", "exception", "place", "error")
    instead = {column: value for column, value in row.instead.items() if column not in ours}
    repairs = "".join(f", {column} = ?" for column in instead)
    db.execute(sql.SET_ASIDE.format(repairs=repairs), (moment, row.why, *instead.values(), row.id))


def depth() -> int:
    """Return how many tasks are ready, held ones included; MOST_COUNTED + 1 if there are more."""
    refuse_event_loop("queue")
    return depth_by(raw(connect()))


def depth_by(db: RawConnection) -> int:
    """Return the same through a connection."""
    count: int = db.execute(sql.DEPTH).fetchone()[0]
    return count
