"""Identical calls beyond the indexes of `unique_key`: `unique_for`, and calls that replace another one.

All of it runs in the transaction that enqueues.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import atomic

from . import statements as sql
from .clock import later
from .database import RawConnection, delete_old
from .records import Call, Extras, UniqueRule
from .states import waiting_state


def earlier(db: RawConnection, call: Call, extras: Extras, rule: UniqueRule, moment: str) -> int | None:
    """Return the id of an identical call that is still in force, or that this one has replaced."""
    if rule.seconds is not None:
        held = db.execute(sql.HELD, (extras.unique_key, moment)).fetchone()
        return held[0] if held else None
    if rule.on_conflict != "replace":
        return None
    for task_id, lane, enqueued_at in db.execute(sql.WAITING_TWIN, (extras.unique_key,)).fetchall():
        if db.execute(sql.REPLACE, (*_replacing(call, extras, rule, enqueued_at, moment), task_id)).rowcount:
            if lane is not None:
                db.execute(sql.RECHECK, (lane,))  # it may have been the next of its group
            found: int = task_id
            return found
    return None


def _replacing(
    call: Call, extras: Extras, rule: UniqueRule, enqueued_at: str, moment: str
) -> tuple[object, ...]:
    due = extras.run_after
    if due is not None and rule.latest is not None:
        due = min(due, later(enqueued_at, rule.latest))
    state = waiting_state(due, extras.lane, extras.fair_key, moment)
    limits = extras.lane, extras.lane_limit, extras.lane_interval, extras.lane_burst, extras.lane_discards
    return *call[1:5], *state, due, extras.expires_at, *limits, extras.tags, extras.fair_key


def hold(db: RawConnection, extras: Extras, rule: UniqueRule, task_id: int, moment: str) -> bool:
    """Let no identical call be enqueued for the time of the rule. Return False if another one does so.

    That one was enqueued just now by another process, which can happen on PostgreSQL.
    """
    if rule.seconds is None:
        return True
    until = later(moment, rule.seconds)
    return db.execute(sql.HOLD, (extras.unique_key, task_id, until, moment)).rowcount == 1


def all_or_none(connection: BaseDatabaseWrapper, calls: Sequence[Call]) -> AbstractContextManager[None]:
    """Return a savepoint of the caller's atomic(), if AlreadyEnqueued may be raised."""
    rules = (call.extras.unique_rule for call in calls if call.extras)
    may_raise = any(rule is not None and rule.on_conflict == "raise" for rule in rules)
    return atomic(connection.alias) if connection.in_atomic_block and may_raise else nullcontext()


def forget(db: RawConnection, moment: str) -> bool:
    """Delete what `unique_for` keeps of calls for which it is over. Return whether there may be more."""
    return delete_old(db, sql.OUTDATED, sql.FORGET_UNIQUE, moment)
