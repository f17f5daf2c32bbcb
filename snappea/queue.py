"""Every write to a Task row, in the order of a task's life.

The hot path is plain SQL on the sqlite3 connection beneath Django's. Each statement's WHERE
names the states it may start from, and for a running task `claims`, the fence: what was
claimed again in the meantime is not touched by a late finish.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet
from django.db.models.signals import post_save
from django.dispatch import receiver

from .conf import current
from .database import connect, file_of, now, raw, transact
from .errors import EnqueueError
from .logbook import Note
from .models import MOVES, Status, Task
from .wakeup import ring

INSERT = """
    INSERT INTO snappea_task (task_name, args, kwargs, queue, priority, acks_late, enqueued_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
PROMOTE = """
    UPDATE snappea_task SET status = 'ready' WHERE id IN (
        SELECT id FROM snappea_task WHERE status = 'scheduled' AND run_after <= ?
        ORDER BY run_after, id LIMIT ?)"""
NEXT_DUE = "SELECT min(run_after) FROM snappea_task WHERE status = 'scheduled'"
CLAIM = """
    UPDATE snappea_task
    SET status = 'running', started_at = ?, attempts = attempts + 1, claims = claims + 1
    WHERE id IN (SELECT id FROM snappea_task WHERE status = 'ready' ORDER BY priority DESC, id LIMIT ?)
    RETURNING -priority, id, claims, task_name, args, kwargs"""
GIVE_BACK = """
    UPDATE snappea_task SET status = 'ready', started_at = NULL, attempts = attempts - 1
    WHERE id = ? AND claims = ? AND status = 'running'"""
SUCCEED = "DELETE FROM snappea_task WHERE id = ? AND claims = ? AND status = 'running'"
FAIL = """
    UPDATE snappea_task SET status = 'failed', finished_at = ?, error = ?
    WHERE id = ? AND claims = ? AND status = 'running'"""
INTERRUPT = """
    UPDATE snappea_task SET
        status = CASE WHEN acks_late AND interruptions + 1 < ? THEN 'ready' ELSE 'interrupted' END,
        interruptions = interruptions + 1, finished_at = ?, error = ?
    WHERE id = ? AND claims = ? AND status = 'running'
    RETURNING status"""
RUNNING = """
    SELECT id, claims FROM snappea_task
    WHERE status = 'running' AND NOT status IN ('ready', 'scheduled') ORDER BY id"""
DEPTH = "SELECT count(*) FROM snappea_task WHERE status = 'ready'"

#: How many due tasks become ready in one round, so that 100,000 of them do not stall it.
PROMOTE_AT_ONCE = 1000


class Call(NamedTuple):
    """What is written of one call of a task function: the row, but for what the queue adds."""

    task_name: str
    args: str
    kwargs: str
    queue: str
    priority: int
    acks_late: bool


class Claim(NamedTuple):
    """A task that was claimed. `order` sorts before `id`: by priority, then first in, first out."""

    order: int
    id: int
    claims: int
    task_name: str
    args: str
    kwargs: str


class Outcome(NamedTuple):
    """What became of a claim after `duration` seconds.

    `error` is the text that is kept, and `reason` the same in one line; both are empty if it succeeded.
    """

    claim: Claim
    duration: float
    error: str = ""
    reason: str = ""


# enqueue


def enqueue(call: Call) -> int:
    """Write a task, wake the Foreman once it is committed, and return the task's id.

    Raises EnqueueError if the database refuses; then nothing was written.
    """
    try:
        connection = connect()
        with connection.wrap_database_errors:
            written = raw(connection).execute(INSERT, (*call, now(connection)))
    except OperationalError as error:
        raise _refusal(error, call.task_name) from error
    _ring_on_commit(connection)
    assert written.lastrowid is not None
    return written.lastrowid


def enqueue_many(calls: Sequence[Call]) -> range:
    """Write tasks in one transaction, with one wakeup, and return their ids, in order.

    Raises EnqueueError if the database refuses; then nothing was written.
    """
    if not calls:
        return range(0)
    try:
        connection = connect()
        with connection.wrap_database_errors, transact(connection) as db:
            moment = now(connection)
            db.executemany(INSERT, ((*call, moment) for call in calls))
            # ids grow by one within a write transaction: nobody else writes
            last = db.execute("SELECT last_insert_rowid()").fetchone()[0]
    except OperationalError as error:
        raise _refusal(error, calls[0].task_name) from error
    _ring_on_commit(connection)
    return range(last - len(calls) + 1, last + 1)


def _refusal(error: OperationalError, task_name: str) -> EnqueueError:
    alias = current().DATABASE
    cure = {
        "no such table": f"run: python manage.py migrate --using={alias}",
        "database is locked": "another process holds the write lock for too long; try again",
        "full": "make room on the disk; try again",
        "readonly": "let this process write the file and its directory",
        "unable to open": f'look at DATABASES["{alias}"]["NAME"], and who may read and write there',
    }
    hint = next((cure[words] for words in cure if words in str(error)), "")
    return EnqueueError(
        f"{task_name} was not enqueued: {error}" + (f" ({hint})." if hint else ".") + " Nothing was written."
    )


def _ring_on_commit(connection: BaseDatabaseWrapper) -> None:
    file = file_of(connection)
    if connection.in_atomic_block:
        transaction.on_commit(lambda: ring(file), using=connection.alias)
    else:
        ring(file)


@receiver(post_save, sender=Task)
def _ring_for_row(*, using: str, **kwargs: Any) -> None:
    """Make `Task.objects.create(...)` wake the Foreman as `delay()` does."""
    if using == current().DATABASE:
        _ring_on_commit(connect())


# the Foreman's round


def promote(db: sqlite3.Connection, moment: str) -> int:
    """Make scheduled tasks that are due ready, and return how many; a round takes only so many."""
    return db.execute(PROMOTE, (moment, PROMOTE_AT_ONCE)).rowcount


def next_due(db: sqlite3.Connection) -> str | None:
    """Return when the next scheduled task is due."""
    due: str | None = db.execute(NEXT_DUE).fetchone()[0]
    return due


def claim(db: sqlite3.Connection, moment: str, limit: int) -> list[Claim]:
    """Claim up to `limit` ready tasks for the Foreman: the most urgent, then the oldest."""
    return sorted(map(Claim._make, db.execute(CLAIM, (moment, limit)).fetchall()))


def give_back(db: sqlite3.Connection, claims: Iterable[Claim]) -> None:
    """Make tasks that were claimed but not begun ready again; no attempt is counted."""
    db.executemany(GIVE_BACK, [(claim.id, claim.claims) for claim in claims])


def settle(db: sqlite3.Connection, moment: str, outcomes: Iterable[Outcome]) -> int:
    """Write what became of the claims. Return how many were no longer the Foreman's to settle."""
    done, failed = [], []
    for claim, _duration, error, _reason in outcomes:
        if error:
            failed.append((moment, error, claim.id, claim.claims))
        else:
            done.append((claim.id, claim.claims))
    settled = 0
    if done:
        settled += db.executemany(SUCCEED, done).rowcount
    if failed:
        settled += db.executemany(FAIL, failed).rowcount
    return len(done) + len(failed) - settled


def interrupt(db: sqlite3.Connection, moment: str, task_id: int, claims: int, why: str) -> str | None:
    """Settle a task that was cut off: ready again if it may be repeated, otherwise kept.

    Returns its new status, None if it was not running under that claim.
    """
    limit = current().MAX_INTERRUPTIONS
    found = db.execute(INTERRUPT, (limit, moment, why, task_id, claims)).fetchall()
    return found[0][0] if found else None


def give_back_orphans(db: sqlite3.Connection, known: Iterable[Claim]) -> None:
    """Make running tasks that are not among the known claims ready again.

    There are some if a claim was committed although the commit reported an error.
    """
    mine = {(claim.id, claim.claims) for claim in known}
    db.executemany(GIVE_BACK, [found for found in db.execute(RUNNING).fetchall() if found not in mine])


def recover(
    db: sqlite3.Connection, moment: str, notes: Mapping[tuple[int, int], Note] | None
) -> dict[str, int]:
    """Settle what a dead Foreman left running, by the notes in its logbook.

    Without notes each of them may have begun. Returns how many went which way.
    """
    counts: dict[str, int] = {}
    for task_id, claims in db.execute(RUNNING).fetchall():
        note = Note.BEGUN if notes is None else notes.get((task_id, claims), Note.CLAIMED)
        if note is Note.CLAIMED:
            db.execute(GIVE_BACK, (task_id, claims))
            verdict = "never begun"
        elif note is Note.SUCCEEDED:
            db.execute(SUCCEED, (task_id, claims))
            verdict = "succeeded"
        elif note is Note.FAILED:
            error = "It raised; the Foreman died before the traceback was written."
            db.execute(FAIL, (moment, error, task_id, claims))
            verdict = "failed"
        else:
            error = "The Foreman died while this task ran."
            again = interrupt(db, moment, task_id, claims, error) == Status.READY
            verdict = "interrupted, to run again" if again else "interrupted"
        counts[verdict] = counts.get(verdict, 0) + 1
    return counts


def depth(db: sqlite3.Connection) -> int:
    """Return how many tasks are ready."""
    count: int = db.execute(DEPTH).fetchone()[0]
    return count


# what people decide


def requeue(tasks: QuerySet[Task]) -> int:
    """Make kept or scheduled tasks ready again, with their attempts forgotten; return how many.

    Tasks that wait or run are left alone.
    """
    changed = tasks.filter(status__in=MOVES["requeue"].origins).update(
        status=Status.READY, attempts=0, interruptions=0, run_after=None, started_at=None, finished_at=None
    )
    if changed:
        _ring_on_commit(connect())
    return changed


def cancel(tasks: QuerySet[Task]) -> int:
    """Delete tasks that wait, and return how many. Those that run or are kept are left alone."""
    # in one write transaction, so that none is claimed between Django's look and its delete
    with transaction.atomic(using=current().DATABASE):
        changed, _by_model = tasks.filter(status__in=MOVES["cancel"].origins).delete()
    return changed
