"""Hands over waiting tasks to Celery. Each call runs once, even if the handover is interrupted at any point.

1. A task's row is moved to the table snappea_handover, in one transaction.
2. Its message is sent, and then `sent_at` is set. After a crash in between, it is sent again.
3. The worker deletes the call from the table before it runs the task. If the call is gone, it does not run.

So each worker needs access to the queue's database; a worker without access puts the message back. The table
is an outbox: in snappea_task, every statement that claims, counts, lists, cancels or warns would have to
exclude these rows.
"""

import json
import os
import secrets
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from uuid import uuid4

from django.db import connections, transaction
from django.db.models import QuerySet

from ..conf import current
from ..errors import CannotStart, UnreadableArguments
from ..models import WAITING, Task
from ..queue import logbook, operations, recovery
from ..queue.clock import as_text, now
from ..queue.database import FAULTS, connect, file_of, raw, transact, writing
from ..queue.foremen import foremen_at_work
from ..queue.lock import Lock
from ..queue.records import Call, Extras
from ..tasks.arguments import decode
from ..tasks.discovery import discover, find

#: How many rows are moved in one transaction, and how many messages are sent before `sent_at` is set.
BATCH = 100
_UNSENT = "SELECT key, call FROM snappea_handover WHERE sent_at IS NULL ORDER BY rowid LIMIT ?"
_SENT = "UPDATE snappea_handover SET sent_at = ? WHERE key = ?"
_SEND_AGAIN = "UPDATE snappea_handover SET sent_at = NULL WHERE sent_at IS NOT NULL AND taken_by = ''"
_EXPIRE = "DELETE FROM snappea_handover WHERE expires_at <= ?"
_TAKE = "DELETE FROM snappea_handover WHERE key = ?"
#: For a task that may be repeated: the call stays until the task ends, for this message only.
_BORROW = "UPDATE snappea_handover SET taken_by = ? WHERE key = ? AND taken_by IN ('', ?)"
_REVOKE = "DELETE FROM snappea_handover WHERE key = ? AND taken_by = ''"


class Item(NamedTuple):
    """A call to hand over, when it was enqueued, and how often it was retried."""

    call: Call
    enqueued_at: str
    retries: int


class Ticket(NamedTuple):
    """What a worker needs to take the call. `key`: Celery's id. `message`: unique to each sending."""

    key: str
    database: int
    message: str
    retries: int


class Unreachable(Exception):
    """The queue's database is not accessible, or is not the one of the ticket."""


# sending


def hand_over(tasks: QuerySet[Task], send: Callable[[Item, Ticket], object], again: bool = False) -> int:
    """Hand over the waiting ones of the tasks, and what an earlier attempt left unsent. Return how many.

    `send`: sends one message. `again`: resend calls that no worker has taken. Raises CannotStart while a
    Foreman runs, and what `send` raises; the next attempt continues from there.
    """
    file = file_of(connect())
    if file is None:
        raise CannotStart("Tasks can be handed over from a SQLite file only, not from PostgreSQL.")
    for foreman in foremen_at_work():
        raise CannotStart(f"A Foreman is running (pid {foreman.pid} on {foreman.host}). Stop it first.")
    lock = Lock(file)
    try:
        with transact(connect()) as db:
            recovery.recover(db, now(), logbook.read(file))  # as the next Foreman would
            db.execute(_EXPIRE, (now(),))
            if again:
                db.execute(_SEND_AGAIN)
        identity = _identity(create=True)
        sent = _send_all(send, identity)
        ids, _left = choose(tasks)
        for start in range(0, len(ids), BATCH):
            operations.hand_over(ids[start : start + BATCH], _pack)
            sent += _send_all(send, identity)
        return sent
    finally:
        lock.close()


def choose(tasks: QuerySet[Task]) -> tuple[list[int], Counter[str]]:
    """Return the tasks that can be handed over, by priority, and why how many others cannot."""
    discover()
    chosen, left, paused = [], Counter[str](), operations.paused()
    for task in tasks.filter(status__in=WAITING).order_by("-priority", "pk").iterator():
        if task.backend is not None:
            left["of django.tasks"] += 1
        elif task.queue in paused:
            left[f"in the queue {task.queue}, which is paused"] += 1
        elif find(task.task_name) is None:
            left["of unknown tasks"] += 1
        elif task.steps:
            left["that have finished steps"] += 1
        elif task.batch_id is not None:
            left["of batches"] += 1
        elif not _is_readable(task):
            left["with arguments that cannot be read"] += 1
        else:
            chosen.append(task.pk)
    return chosen, left


def _is_readable(task: Task) -> bool:
    try:
        decode(task.args, task.kwargs)
    except UnreadableArguments:
        return False
    return True


def outstanding() -> int:
    """Return how many handed-over calls no worker has taken, or has not finished if they may be repeated."""
    count: int = raw(connect()).execute("SELECT count(*) FROM snappea_handover").fetchone()[0]
    return count


def _pack(task: Task) -> tuple[str, str]:
    """Return an id for Celery, and the task's Item as JSON."""
    extras = Extras(
        run_after=as_text(task.run_after) if task.run_after and task.status == "scheduled" else None,
        expires_at=as_text(task.expires_at) if task.expires_at else None,
        result_ttl=task.result_ttl,
        parent_id=task.parent_id,
        is_sensitive=task.is_sensitive,
        keeps_result=task.keeps_result,
        tags=task.tags,
    )
    how = task.queue, task.priority, task.acks_late, task.is_async, extras
    call = Call(task.task_name, task.args, task.kwargs, *how)
    retries = max(0, task.attempts - task.interruptions)
    return str(uuid4()), json.dumps(Item(call, as_text(task.enqueued_at), retries))


def _unpack(text: str) -> Item:
    (*columns, extras), enqueued_at, retries = json.loads(text)
    return Item(Call(*columns)._replace(extras=Extras(*extras)), enqueued_at, retries)


def _send_all(send: Callable[[Item, Ticket], object], identity: int) -> int:
    """Send all messages without `sent_at`; return how many."""
    sent = 0
    while batch := raw(connect()).execute(_UNSENT, (BATCH,)).fetchall():
        for key, text in batch:
            item = _unpack(text)
            send(item, Ticket(key, identity, secrets.token_hex(16), item.retries))
        with transact(connect()) as db:
            db.executemany(_SENT, [(now(), key) for key, _text in batch])
        sent += len(batch)
    return sent


def _identity(create: bool = False) -> int:
    """Return the number that identifies the database, even if its file is moved; 0 if it has none."""
    if create and not _identity():
        with writing(connect()) as db:
            db.execute(f"PRAGMA application_id = {secrets.randbelow(2**31 - 1) + 1}")
    number: int = raw(connect()).execute("PRAGMA application_id").fetchone()[0]
    return number


# taking


def take(ticket: Ticket, may_repeat: bool) -> bool:
    """Take a call before it runs. If this returns False, the call is gone and must not run.

    `may_repeat`: the call stays in the table until `finish()`, so that the same message can take it again.
    Raises Unreachable.
    """
    if may_repeat:
        return _change(_BORROW, ticket.message, ticket.key, ticket.message, database=ticket.database)
    return _change(_TAKE, ticket.key, database=ticket.database)


def finish(ticket: Ticket) -> None:
    """Delete a call that may be repeated, after it has ended. Raises Unreachable."""
    _change(_TAKE, ticket.key, database=ticket.database)


def revoke(key: str) -> None:
    """Delete a call that no worker has taken, so that it does not run. Raises Unreachable."""
    _change(_REVOKE, key)


def _change(statement: str, *parameters: object, database: int | None = None) -> bool:
    """Run a statement; return whether it changed a row. `database`: the expected database's number."""
    path = str(connections[current().DATABASE].settings_dict["NAME"])
    if not os.path.exists(path):  # connecting would create it
        raise Unreachable(f"{path} does not exist")
    try:
        if database not in (None, _identity()):
            raise Unreachable(f"{path} is another database")
        connection = connect()
        with transaction.atomic(using=connection.alias):  # rolls back if the disk does not sync
            return raw(connection).execute(statement, parameters).rowcount == 1
    except FAULTS as error:
        raise Unreachable(str(error)) from error
