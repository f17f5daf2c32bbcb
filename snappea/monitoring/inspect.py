"""How things stand: what waits, what runs, what failed, and who is at work.

Only looks, and that without a scan of the table, however many rows there are: by the partial indexes of the
queue, and for what runs by the Foreman's logbook.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ..conf import current, declared_queues, uses_celery
from ..memory import resident
from ..models import Status
from ..queue import logbook, store
from ..queue.clock import now
from ..queue.connection import RawConnection
from ..queue.database import connect, file_of, raw
from ..queue.foremen import foremen_at_work
from ..queue.logbook import Entry, Note
from ..queue.operations import paused
from ..queue.records import ForemanInfo
from ..tasks.registry import find

#: Of so many waiting tasks it is looked at which they are; if there are more, the numbers end with a "+".
SAMPLE = 5_000
#: So many of the first tasks of a queue and priority are looked at for the one that has waited longest.
ELDERS = 20
#: What somebody should see to who has put Celery in charge.
LEFT_BEHIND = "Tasks wait in the queue's database, but Celery is in charge: manage.py snappea handover"
#: At most so many groups of failures are shown.
MOST_SHOWN = 100

_KEPT = "NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running')"
#: Which rows are in a state, in words that the partial indexes understand.
IN_STATE: dict[Status, str] = {
    Status.READY: """snappea_task.id IN (
        SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0
        UNION ALL SELECT id FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready'
        UNION ALL SELECT id FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0)""",
    Status.SCHEDULED: "status = 'scheduled'",
    **{
        status: f"status = '{status}' AND {_KEPT}"
        for status in (Status.FAILED, Status.INTERRUPTED, Status.SUCCESSFUL, Status.CANCELLED)
    },
}
#: Which failed tasks raised an exception.
RAISED = "snappea_task.id IN (SELECT id FROM snappea_task WHERE status = 'failed' AND exception = %s)"
_COUNT: dict[Status, str] = {
    status: f"SELECT count(*) FROM snappea_task WHERE {condition}"
    for status, condition in IN_STATE.items()
    if status != Status.READY
}
_GROUPS = """
    SELECT queue, priority, is_async, count(*) FROM snappea_task WHERE status = 'ready' AND gate = 0
    GROUP BY is_async, queue, priority"""
_ELDEST = """
    SELECT min(since) FROM (SELECT coalesce(run_after, enqueued_at) AS since FROM snappea_task
        WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue = ? AND priority = ?
        ORDER BY id LIMIT ?) AS eldest"""
_HELD = """
    SELECT queue, count(*) FROM (SELECT queue FROM snappea_task
        WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0 LIMIT ?) AS few GROUP BY queue"""
_NAMES = """
    SELECT task_name, count(*) FROM (SELECT task_name FROM snappea_task
        WHERE status = 'ready' AND gate = 0 LIMIT ?) AS few GROUP BY task_name"""
_FAILURES = """
    SELECT exception, place, task_name, count(*) AS number FROM snappea_task WHERE status = 'failed'
    GROUP BY exception, place, task_name ORDER BY number DESC"""
_IN_FLIGHT = """
    SELECT id, claims, task_name, queue, +started_at, attempts,
        progress_done, progress_total, progress_note, +is_revoked, foreman_id, +is_async
    FROM snappea_task WHERE id IN (SELECT value FROM json_each(?)) AND status = 'running' ORDER BY id"""
#: Where no logbook tells: there has been no Foreman since the machine started, or there may be several.
_RUNNING = """
    SELECT id, claims, +started_at FROM snappea_task
    WHERE status = 'running' /*+ AND foreman_id IS NOT NULL */ LIMIT ?"""


class Running(NamedTuple):
    """A task that runs. `elapsed` and `limit` are in seconds, `total` and `limit` None if there is none.

    `foreman`: the number of the one that runs it, where there may be several.
    """

    id: int
    task_name: str
    queue: str
    elapsed: float
    limit: float | None
    attempts: int
    done: float | None
    total: float | None
    note: str
    is_revoked: bool
    foreman: int | None
    #: Whether it runs on the event loop, not in a thread.
    is_async: bool
    is_stuck: bool


class QueueState(NamedTuple):
    """A queue. `held`: how many wait for a limit of their own; `oldest`: how long one has waited by now."""

    name: str
    ready: int
    held: int
    running: int
    oldest: float | None
    limit: int | None
    paused_since: datetime | None


class Failures(NamedTuple):
    """Tasks that failed in the same way: `number` of them."""

    exception: str
    place: str
    task_name: str
    number: int


def _db() -> RawConnection:
    return raw(connect())


def in_flight() -> Mapping[Entry, Note]:
    """Return how far each claim is that the Foreman has in hand, or had when it died."""
    file = file_of(connect())
    notes = logbook.read(file) if file else None
    if notes is None:
        found = _db().execute(_RUNNING, (1000,)).fetchall()
        return {Entry.of(*fence): Note.BEGUN for fence in found}
    return notes


def ids_in_flight() -> list[int]:
    """Return the ids of the tasks that the Foreman has in hand, or had when it died."""
    return [entry.id for entry in in_flight()]


def running(claims: Mapping[Entry, Note], stuck: Collection[int] = ()) -> list[Running]:
    """Return what runs of these claims, the oldest first; not what has not begun. `stuck`: ids."""
    begun = [entry.id for entry, note in claims.items() if note is Note.BEGUN]
    rows = _db().execute(_IN_FLIGHT, (json.dumps(begun),)).fetchall()
    limits = {queue_and_name: _limit(*queue_and_name) for queue_and_name in {row[2:4] for row in rows}}
    return [
        Running._make(
            (task_id, name, queue, _age(since) or 0.0, limits[name, queue], *told, task_id in stuck)
        )
        for task_id, fence, name, queue, since, *told in rows
        if claims.get(Entry.of(task_id, fence, since)) is Note.BEGUN
    ]


def _limit(name: str, queue: str) -> float | None:
    """Return after how many seconds a task of a queue is ended, None if never."""
    task = find(name)
    limits = (task.options.time_limit, task.soft_time_limit(queue)) if task else ()
    return min((limit for limit in limits if limit is not None), default=None)


def _age(moment: str | None) -> float | None:
    """Return how many seconds have passed since a moment in the database."""
    if moment is None:
        return None
    try:
        return max(0.0, (datetime.fromisoformat(now()) - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):  # somebody wrote the row by hand
        return None


def memory_of(info: ForemanInfo) -> int:
    """Return how much memory a Foreman has, in bytes; 0 if this process cannot see it."""
    return resident(info.pid) if info.is_here else 0


def described(info: ForemanInfo) -> dict[str, Any]:
    """Return what is shown of a Foreman, as plain data."""
    shown = info._asdict()
    del shown["is_here"]
    return {**shown, "memory": memory_of(info)}


def count(status: str, claims: Mapping[Entry, Note] | None = None) -> int:
    """Return how many tasks are in a state. `claims`: what is in flight, if that is known."""
    if status == Status.RUNNING:
        ids = json.dumps([entry.id for entry in (in_flight() if claims is None else claims)])
        return len(_db().execute(_IN_FLIGHT, (ids,)).fetchall())
    if status == Status.READY:
        return store.depth(_db())
    number: int = _db().execute(_COUNT[Status(status)]).fetchone()[0]
    return number


def counts() -> dict[str, int]:
    """Return how many tasks are in each state."""
    return {str(status): count(status) for status in Status}


def queues(runs: Collection[Running] = ()) -> list[QueueState]:
    """Return how the queues stand, by name. `runs`: what runs."""
    db = _db()
    ready: dict[str, int] = {}
    oldest: dict[str, float] = {}
    for name, priority, is_async, count in db.execute(_GROUPS).fetchall():
        ready[name] = ready.get(name, 0) + count
        (since,) = db.execute(_ELDEST, (is_async, name, priority, ELDERS)).fetchone()
        oldest[name] = max(oldest.get(name, 0.0), _age(since) or 0.0)
    held = dict(db.execute(_HELD, (SAMPLE,)).fetchall())
    stopped = paused(db)
    busy = [run.queue for run in runs]
    names = {"default", *(declared_queues() or ()), *ready, *held, *stopped, *busy}
    limits = {name: limits.get("max_concurrency") for name, limits in (current().QUEUES or {}).items()}
    return [
        QueueState(
            name,
            ready.get(name, 0),
            held.get(name, 0),
            busy.count(name),
            oldest.get(name),
            None if (limit := limits.get(name)) is None else int(limit),
            datetime.fromisoformat(stopped[name]).replace(tzinfo=connect().timezone)
            if name in stopped
            else None,
        )
        for name in sorted(names)
    ]


def oldest_wait(states: Collection[QueueState]) -> float | None:
    """Return how long a task has waited that could be run, in seconds; None if none waits."""
    waits = (state.oldest for state in states if state.paused_since is None and state.oldest is not None)
    return max(waits, default=None)


def waiting_names() -> tuple[dict[str, int], bool]:
    """Return how many of which task wait, and whether there are more than were looked at."""
    found = dict(_db().execute(_NAMES, (SAMPLE,)).fetchall())
    return found, sum(found.values()) >= SAMPLE


def failures() -> list[Failures]:
    """Return what failed, grouped by the exception and by where it was raised, the most frequent first."""
    return list(map(Failures._make, _db().execute(_FAILURES).fetchall()))


def warnings(is_alive: bool, oldest: float | None) -> list[str]:
    """Return what somebody should see to, in words. `oldest`: how long a task has waited."""
    said = []
    if uses_celery():
        return [] if oldest is None else [LEFT_BEHIND]
    if not is_alive:
        said.append("No Foreman runs: nothing that is enqueued will be done. Start it: manage.py runsnappea")
    limit = current().WARN_BACKLOG_SECONDS
    if limit is not None and (oldest or 0.0) > limit:
        said.append(f"The oldest ready task has waited for {oldest:,.0f} s; {limit:g} s is what you allow.")
    return said


def look_for_warnings() -> list[str]:
    """Return what somebody should see to, as of now."""
    return warnings(bool(foremen_at_work()), oldest_wait(queues()))
