"""Operations of users on tasks and queues, from the admin, the command line or the shell.

Rows are changed in batches. Each is a short transaction, followed by a rest, so that no other process waits
long for the write lock. A task that has changed its state meanwhile is left alone.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet

from ..conf import current
from ..errors import PauseUnconfirmed, refuse_event_loop
from ..models import MOVES, Schedule, ScheduleRun, Task
from . import batches, groups, store
from . import statements as sql
from .clock import as_text, later, now, seconds_of
from .database import ADAPTERS, RawConnection, adapter, connect, file_of, raw, ring_on_commit, transact
from .lock import holder

#: What a batch writes besides: see _in_batches().
LetGo: TypeAlias = Callable[[RawConnection, slice], None]

#: How long a batch lasts, in seconds, and after how many rows it checks the time.
BATCH = 0.005
STEP = 20
#: How many rows are looked up at once.
PAGE = 1000
#: PostgreSQL's code of the error that ends a deadlock.
DEADLOCK = "40P01"

#: How long pause() waits for the Foremen to confirm it, and how often it checks, in seconds.
CONFIRM_WITHIN = 10.0
CONFIRM_EVERY = 0.002


def requeue(tasks: QuerySet[Task], countdown: float | timedelta | None = None) -> int:
    """Make kept or scheduled tasks ready again, and reset their attempts; return how many.

    `countdown`: how long they wait first, in seconds or as a timedelta. Ready and running tasks are left
    alone. Raises TypeError or ValueError for an invalid countdown.

    >>> requeue(Task.objects.filter(status="failed", queue="mail"), countdown=60)
    3
    """
    return sum(requeue_in_batches(tasks, countdown))


def requeue_in_batches(tasks: QuerySet[Task], countdown: float | timedelta | None = None) -> Iterator[int]:
    """Do the same, and yield how many tasks each batch changed."""
    seconds = None if countdown is None else seconds_of(countdown, "countdown")
    due = None if seconds is None else later(now(), seconds)
    for page in _chosen(tasks, "requeue", "pk", "claims", "batch_id"):
        if members := {batch_id for *_fence, batch_id in page if batch_id is not None}:
            with connect().wrap_database_errors, transact(connect()) as db:
                batches.reopen(db, members)
        yield from _in_batches([sql.REQUEUE], [(due, due, *fence) for *fence, _batch_id in page])


def cancel(tasks: QuerySet[Task]) -> int:
    """Delete waiting tasks, and return how many. Running and kept tasks are left alone.

    >>> cancel(Task.objects.filter(status="ready", queue="mail"))
    3
    """
    return sum(cancel_in_batches(tasks))


def cancel_in_batches(tasks: QuerySet[Task]) -> Iterator[int]:
    """Do the same, and yield how many tasks each batch deleted."""
    for page in _chosen(tasks, "cancel", "pk", "lane", "unique_key", "batch_id"):
        ids, lanes, _keys, batch_ids = zip(*page, strict=True)

        def let_go(db: RawConnection, done: slice, held: Any = (lanes, batch_ids)) -> None:
            in_lanes, in_batches = ({*column[done]} - {None} for column in held)
            store.end_members(db, in_batches)
            groups.recheck(db, sorted(in_lanes))  # last, as in a Foreman's round

        yield from _in_batches([sql.RELEASE, sql.CANCEL], [(pk,) for pk in ids], let_go)
        _note_gone(ids, "cancelled")


def terminate(tasks: QuerySet[Task]) -> int:
    """Ask the Foreman to end running tasks, and return how many: it raises TaskRevoked inside each.

    >>> terminate(Task.objects.filter(status="running", task_name="mail.tasks.send_mail"))
    1
    """
    return sum(terminate_in_batches(tasks))


def terminate_in_batches(tasks: QuerySet[Task]) -> Iterator[int]:
    """Do the same, and yield how many tasks each batch asked to end."""
    for page in _chosen(tasks, "terminate", "pk"):
        yield from _in_batches([sql.REVOKE], page)


def delete(tasks: QuerySet[Task]) -> int:
    """Delete kept tasks, and return how many. Waiting and running tasks are left alone.

    >>> delete(Task.objects.filter(status="cancelled"))
    3
    """
    return sum(delete_in_batches(tasks))


def delete_in_batches(tasks: QuerySet[Task]) -> Iterator[int]:
    """Do the same, and yield how many tasks each batch deleted."""
    for fences in _chosen(tasks, "delete", "pk", "claims"):
        yield from _in_batches([sql.DELETE], fences)
        _note_gone((pk for pk, _claims in fences), "deleted")


def hand_over(ids: Sequence[int], packed: Callable[[Task], tuple[str, str]]) -> int:
    """Move waiting tasks to the table of calls for Celery, in one transaction; return how many.

    `packed`: returns the key and the message of a task. Call it only while no Foreman runs.
    """
    moved = []
    with connect().wrap_database_errors, transact(connect()) as db:
        waiting = Task.objects.using(current().DATABASE).filter(status__in=MOVES["hand over"].origins)
        found = waiting.in_bulk(list(ids))
        for task in (found[pk] for pk in ids if pk in found):
            key, call = packed(task)
            if db.execute(sql.CANCEL, (task.pk,)).rowcount:
                expires_at = None if task.expires_at is None else as_text(task.expires_at)
                db.execute(sql.HAND_OVER, (key, task.task_name, call, expires_at))
                moved.append(task.pk)
    _note_gone(moved, "handed over")
    return len(moved)


def pause(queue: str) -> bool:
    """Start no more tasks of a queue until it is resumed. Return False if it was already paused.

    Running tasks continue. Returns when every Foreman has confirmed the pause: within milliseconds, or a
    second if all its workers are busy (two on PostgreSQL). Inside a transaction on the queue's database, it
    returns at once, and the pause takes effect just after the commit.

    Raises PauseUnconfirmed if a Foreman does not confirm within 10 s. The queue is paused even then.

    >>> pause("mail")
    True
    """
    refuse_event_loop("queue")
    connection = connect()
    with connection.wrap_database_errors, transact(connection) as db:
        is_new = db.execute(sql.PAUSE, (queue, now())).rowcount == 1
        db.execute(sql.RECALL, (queue,))
    ring_on_commit(connection)
    if not connection.in_atomic_block:
        give_up = time.monotonic() + CONFIRM_WITHIN
        while not _is_confirmed(queue):
            if time.monotonic() > give_up:
                raise PauseUnconfirmed(queue, CONFIRM_WITHIN)
            time.sleep(CONFIRM_EVERY)
    return is_new


def _is_confirmed(queue: str) -> bool:
    connection = connect()
    if connection.vendor in ADAPTERS:
        return bool(adapter(connection, "foremen").has_confirmed(raw(connection), queue))
    with connection.wrap_database_errors:
        file, found = file_of(connection), raw(connection).execute(sql.HEARD_BY, (queue,)).fetchone()
    return found is None or found[0] != "" or file is None or holder(file) is None


def resume(queue: str) -> bool:
    """Serve a paused queue again. Return False if it was not paused."""
    refuse_event_loop("queue")
    with connect().wrap_database_errors, transact(connect()) as db:
        was_paused = db.execute(sql.RESUME, (queue,)).rowcount == 1
        if was_paused:
            groups.recheck(db, sorted(lane for (lane,) in db.execute(sql.BLOCKED_GROUPS).fetchall()))
    ring_on_commit(connect())
    return was_paused


def paused() -> dict[str, str]:
    """Return the paused queues, each with the time of the pause as text.

    >>> paused()
    {'mail': '2026-11-27 12:00:00.000000'}
    """
    refuse_event_loop("queue")
    return paused_by(raw(connect()))


def set_limits(task_name: str, lane: str, *limits: float | None) -> None:
    """Change limits of a task or of one of its groups, and check the groups again. None keeps a limit."""
    refuse_event_loop("limits")
    _apply(sql.SET_LIMITS, [(lane, *limits)])
    _recheck_task(task_name)


def reset_limits(task_name: str, lane: str) -> bool:
    """Undo such changes. Return whether there were any."""
    refuse_event_loop("limits")
    was_changed = bool(_apply(sql.RESET_LIMITS, [(lane,)]))
    _recheck_task(task_name)
    return was_changed


def _recheck_task(name: str) -> None:
    rows = sorted(raw(connect()).execute(sql.GROUPS, (name,)).fetchall())

    def let_go(db: RawConnection, done: slice) -> None:
        groups.recheck(db, [lane for (lane,) in rows[done]])

    sum(_in_batches([sql.RECALL_GROUP], rows, let_go))


def paused_by(db: RawConnection) -> dict[str, str]:
    """Return the same through a connection."""
    return dict(db.execute(sql.PAUSED).fetchall())


def _chosen(tasks: QuerySet[Task], verb: str, *columns: str) -> Iterator[list[Any]]:
    """Yield columns, the id first, of the tasks that a verb applies to, in pages, the oldest first."""
    refuse_event_loop("queue")
    tasks = tasks.using(current().DATABASE).filter(status__in=MOVES[verb].origins).order_by("pk")
    page = list(tasks.values_list(*columns)[:PAGE])
    if len(page) == PAGE:  # leave out tasks that are added meanwhile, or it might never end
        tasks = tasks.filter(pk__lte=tasks.values_list("pk", flat=True).last())
    while page:
        yield page
        is_last = len(page) < PAGE
        page = [] if is_last else list(tasks.filter(pk__gt=page[-1][0]).values_list(*columns)[:PAGE])


def _note_gone(ids: Iterable[int], what: str) -> None:
    """Write to schedules and their runs what happened to the tasks that they enqueued."""
    known = {*Schedule.objects.values_list("last_task_id", flat=True)}
    known.update(ScheduleRun.objects.values_list("task_id", flat=True))
    gone = [(what, pk) for pk in ids if pk in known]
    for note in sql.NOTE_GONE:
        _apply(note, gone)


def _apply(statement: str, rows: Sequence[Sequence[object]]) -> int:
    """Run a statement for each of `rows`, and return how many rows changed."""
    return sum(_in_batches([statement], rows))


def _in_batches(
    statements: Sequence[str], rows: Sequence[Sequence[object]], let_go: LetGo | None = None
) -> Iterator[int]:
    """Run statements for `rows`. After each batch, wake the Foreman and yield how many the last changed.

    `let_go` runs in the transaction of each batch, with the place of its rows.
    """
    connection = connect()
    at = 0
    while at < len(rows):
        began = time.monotonic()
        try:
            changed, at = _write_batch(connection, statements, rows, at, let_go)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") != DEADLOCK or connection.in_atomic_block:
                raise
            continue  # the server chose this transaction to be rolled back
        ring_on_commit(connection)
        yield changed
        if at < len(rows) and not connection.in_atomic_block:
            # a process that waits for the lock checks it only now and then
            time.sleep(time.monotonic() - began)


def _write_batch(
    connection: BaseDatabaseWrapper,
    statements: Sequence[str],
    rows: Sequence[Sequence[object]],
    first: int,
    let_go: LetGo | None,
) -> tuple[int, int]:
    """Run statements for rows from `first` on. Return how many the last changed, and where to go on."""
    changed, at = 0, first
    with connection.wrap_database_errors, transact(connection) as db:
        give_up = time.monotonic() + BATCH
        while at < len(rows) and time.monotonic() < give_up:
            for statement in statements:
                found = db.executemany(statement, rows[at : at + STEP]).rowcount
            changed += max(0, found)
            at += STEP
        if let_go:
            let_go(db, slice(first, at))
    return changed, at
