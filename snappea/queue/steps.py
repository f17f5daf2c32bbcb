"""What a task's finished steps have returned, on its row.

Read and written by the worker, on its own connection, as `delay()` inside a task is. The fence keeps out an
attempt that no longer has the task.
"""

from collections.abc import Sequence
from typing import Any

from django.db.transaction import TransactionManagementError

from ..errors import ClaimLost
from . import statements as sql
from .database import UNUSABLE, connect, is_left_behind, raw, writing
from .records import Claim
from .refusals import explained


def steps_of(claim: Claim) -> str:
    """Return what earlier attempts have kept. Raises ClaimLost or QueueUnavailable."""
    found: tuple[str] | None = _as_worker(sql.STEPS, claim.fence, writes=False).fetchone()
    if found is None:
        raise ClaimLost(claim.id)
    return found[0]


def keep_steps(claim: Claim, steps: str) -> None:
    """Commit what an attempt keeps, as JSON.

    Raises ClaimLost, QueueUnavailable or TransactionManagementError.
    """
    require_commit()
    if not _as_worker(sql.KEEP_STEPS, (steps, *claim.fence)).rowcount:
        raise ClaimLost(claim.id)


def require_commit() -> None:
    """Raise TransactionManagementError inside `atomic()` of the queue's database, except in a test."""
    if any(not getattr(block, "_from_testcase", False) for block in connect().atomic_blocks):
        raise TransactionManagementError(
            "step() and cursor.set() must commit, but are called inside atomic() of the queue's database, "
            "which could roll back: call them outside that block."
        )


def _as_worker(statement: str, parameters: Sequence[object], writes: bool = True) -> Any:
    try:
        connection = connect()
        with connection.wrap_database_errors:
            if not writes:
                return raw(connection).execute(statement, parameters)
            with writing(connection) as db:
                return db.execute(statement, parameters)
    except UNUSABLE as error:
        if is_left_behind(error):
            return _as_worker(statement, parameters, writes)
        raise explained(error) from error
