"""Handing over what waits in the table to Celery: each call once, wherever it is interrupted.

A task's row is moved into the table of what is handed over, in one transaction. Then its message is sent, and
then that is noted: if it cannot be known whether a message was sent, it is sent once more. So the worker that
is to run it takes it out of the table first, and what is not there any more is refused. Every worker that
gets such a message must reach the queue's database; one that does not puts the message back.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import NAMESPACE_URL, uuid5

from django.db import connections
from django.db.models import QuerySet

from ..conf import current
from ..errors import CannotStart, UnreadableArguments
from ..models import WAITING, Task
from ..queue import logbook, operations, store
from ..queue.clock import as_text, now
from ..queue.connection import FAULTS, RawConnection
from ..queue.database import QueueFile, connect, file_of, raw, transact
from ..queue.foremen import foremen_at_work
from ..queue.lock import Lock
from ..queue.records import Call, Extras
from ..tasks.arguments import decode
from ..tasks.registry import discover, find

#: How many rows are moved in one transaction, and how many messages are sent before that is noted.
AT_ONCE = 100
_UNSENT = "SELECT key, call FROM snappea_handover WHERE sent_at IS NULL ORDER BY rowid LIMIT ?"
_SENT = "UPDATE snappea_handover SET sent_at = ? WHERE key = ?"
_AGAIN = "UPDATE snappea_handover SET sent_at = NULL WHERE sent_at IS NOT NULL AND taken_by = ''"
_EXPIRE = "DELETE FROM snappea_handover WHERE expires_at <= ?"
_COUNT = "SELECT count(*) FROM snappea_handover"
_TAKE = "DELETE FROM snappea_handover WHERE key = ?"
_FORGET = "DELETE FROM snappea_handover WHERE key = ? AND taken_by = ''"
_BORROW = "UPDATE snappea_handover SET taken_by = ? WHERE key = ? AND taken_by IN ('', ?)"


class Item(NamedTuple):
    """A call that is handed over. `retries`: how often it was tried again before. `enqueued_at`: a time."""

    call: Call
    enqueued_at: str
    retries: int


class Ticket(NamedTuple):
    """What the message of a call that is handed over carries: with it a worker takes the call.

    `database`: which one it lies in. `message`: a number of its own. `retries`: how often the call had been
    tried again when it was handed over.
    """

    key: str
    database: int
    message: str
    retries: int


class Report(NamedTuple):
    """What was done. `left`: why how many tasks stay where they are."""

    handed: int
    left: dict[str, int]


class Unreachable(Exception):
    """The queue's database is not here, or it is another one."""


# the side that gives


def hand_over(tasks: QuerySet[Task], send: Callable[[Item, Ticket], object], again: bool = False) -> Report:
    """Hand over those of the tasks that wait; and first what an earlier attempt has left half done.

    `send`: sends one message. `again`: send once more what no worker has taken yet. Raises CannotStart while
    a Foreman is at work, and what `send` raises: what was not sent is, the next time.
    """
    file = file_of(connect())
    if file is None:
        raise CannotStart("The queue's database is no SQLite file: what waits there is not handed over.")
    lock = _lock(file)
    try:
        with transact(connect()) as db:  # what a dead Foreman left, as the next one would settle it
            store.recover(db, now(), logbook.read(file))
            db.execute(_EXPIRE, (now(),))
            if again:
                db.execute(_AGAIN)
        identity = _identity(mark=True)
        handed = _send_all(send, identity)
        ids, left = choose(tasks)
        for start in range(0, len(ids), AT_ONCE):
            operations.hand_over(ids[start : start + AT_ONCE], lambda task: _packed(task, identity))
            handed += _send_all(send, identity)
        return Report(handed, left)
    finally:
        lock.close()


def _lock(file: QueueFile) -> Lock:
    for alive in foremen_at_work():
        raise CannotStart(
            f"A Foreman is at work (pid {alive.pid} on {alive.host}), and would run meanwhile what is to be "
            "handed over. Stop it first."
        )
    return Lock(file)


def choose(tasks: QuerySet[Task]) -> tuple[list[int], dict[str, int]]:
    """Return which of the tasks can be handed over, the most urgent first, and why how many cannot."""
    chosen: list[int] = []
    left: dict[str, int] = {}
    paused = operations.paused()
    discover()
    known: dict[str, bool] = {}
    for task in tasks.filter(status__in=WAITING).order_by("-priority", "pk").iterator():
        name = task.task_name
        if name not in known:
            known[name] = find(name) is not None
        if task.backend is not None:
            why = "of django.tasks"
        elif task.queue in paused:
            why = f"in the queue {task.queue}, which is paused"
        elif not known[name]:
            why = "of no task that is known here"
        elif not _is_readable(task):
            why = "with arguments that cannot be read"
        else:
            chosen.append(task.pk)
            continue
        left[why] = left.get(why, 0) + 1
    return chosen, left


def _is_readable(task: Task) -> bool:
    try:
        decode(task.args, task.kwargs)
    except UnreadableArguments:
        return False
    return True


def outstanding() -> int:
    """Return how many calls were handed over that no worker has taken, or finished if it may be repeated."""
    count: int = raw(connect()).execute(_COUNT).fetchone()[0]
    return count


def _packed(task: Task, identity: int) -> tuple[str, str]:
    """Return Celery's id of a task, and all that is sent of it."""
    enqueued_at = as_text(task.enqueued_at)
    extras = Extras(
        run_after=as_text(task.run_after) if task.run_after and task.status == "scheduled" else None,
        expires_at=as_text(task.expires_at) if task.expires_at else None,
        result_ttl=task.result_ttl,
        parent_id=task.parent_id,
        is_sensitive=task.is_sensitive,
    )
    how = task.queue, task.priority, task.acks_late, task.is_async, extras
    call = Call(task.task_name, task.args, task.kwargs, *how)
    retries = max(0, task.attempts - task.interruptions)
    key = str(uuid5(NAMESPACE_URL, f"snappea:{identity}:{task.pk}:{enqueued_at}"))
    return key, json.dumps(Item(call, enqueued_at, retries))


def _unpacked(text: str) -> Item:
    (*columns, extras), enqueued_at, retries = json.loads(text)
    return Item(Call(*columns)._replace(extras=Extras(*extras)), enqueued_at, retries)


def _send_all(send: Callable[[Item, Ticket], object], identity: int) -> int:
    """Send what is not known to be sent, and return how much that was."""
    return sum(len(batch) for batch in _sent(send, identity))


def _sent(send: Callable[[Item, Ticket], object], identity: int) -> Iterator[list[str]]:
    db = raw(connect())
    while batch := db.execute(_UNSENT, (AT_ONCE,)).fetchall():
        for key, text in batch:
            item = _unpacked(text)
            send(item, Ticket(key, identity, secrets.token_hex(16), item.retries))
        with transact(connect()) as below:
            below.executemany(_SENT, [(now(), key) for key, _text in batch])
        yield [key for key, _text in batch]


def _identity(mark: bool = False) -> int:
    """Return the number by which the database can be told from others; 0 if it has none.

    `mark`: then give it one. It goes where the file goes.
    """
    db = raw(connect())
    if mark and not db.execute("PRAGMA application_id").fetchone()[0]:
        db.execute(f"PRAGMA application_id = {secrets.randbelow(2**31 - 1) + 1}")
    number: int = db.execute("PRAGMA application_id").fetchone()[0]
    return number


# the side that takes


def take(ticket: Ticket, may_repeat: bool) -> bool:
    """Take a call before it is run, and tell whether it was there: if not, it must not be run.

    `may_repeat`: it stays in the table until `finish()`, and the same message can take it again. Raises
    Unreachable.
    """
    with _reaching():
        db = _reach(ticket)
        if may_repeat:
            return db.execute(_BORROW, (ticket.message, ticket.key, ticket.message)).rowcount == 1
        return db.execute(_TAKE, (ticket.key,)).rowcount == 1


def finish(ticket: Ticket) -> None:
    """Forget a call that may be repeated, once it has ended. Raises Unreachable."""
    with _reaching():
        _reach(ticket).execute(_TAKE, (ticket.key,))


def forget(key: str) -> None:
    """Have a call not run that was handed over from here, if no worker has taken it. Raises Unreachable."""
    with _reaching():
        if os.path.exists(_path()):
            raw(connect()).execute(_FORGET, (key,))


@contextmanager
def _reaching() -> Iterator[None]:
    """Raise Unreachable for whatever the database may raise."""
    try:
        yield
    except FAULTS as error:
        raise Unreachable(str(error)) from error


def _reach(ticket: Ticket) -> RawConnection:
    """Return the connection to the database in which a call was handed over. Raises Unreachable."""
    path = _path()
    if path and not os.path.exists(path):  # to connect would make a new one
        raise Unreachable(f"there is no {path}")
    if _identity() != ticket.database:
        raise Unreachable(f"{path} is another database")
    return raw(connect())


def _path() -> str:
    return str(connections[current().DATABASE].settings_dict["NAME"])
