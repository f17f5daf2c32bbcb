"""The state of the queue: waiting, running and failed tasks, queues, and warnings.

Nothing here writes to the database or scans the table: partial indexes find waiting and kept tasks, and the
Foreman's logbook lists running tasks.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import BooleanField, QuerySet
from django.db.models.expressions import RawSQL

from ..conf import current, declared_queues, queue_limits, uses_celery
from ..memory import resident
from ..models import Gate, Status, Task
from ..queue import logbook
from ..queue.clock import as_datetime, later, now
from ..queue.database import RawConnection, connect, file_of, raw
from ..queue.dialects import MOST_COUNTED, counted, statement
from ..queue.foremen import foremen_at_work
from ..queue.logbook import Entry, Note
from ..queue.records import ForemanInfo
from ..tasks.discovery import find
from .groups import first_of_each

#: How many waiting tasks to count by name. If there are more, the numbers end with "+".
SAMPLE = 5_000
#: How many tasks of a queue and priority to examine for the longest wait.
ELDERS = 20
LEFT_BEHIND = (
    "Tasks wait in the queue's database, but Celery is the engine. Run: python manage.py snappea handover"
)
_SENTENCES = {
    "left_behind": LEFT_BEHIND,
    "no_foreman": "No Foreman runs, so no tasks are executed. Start it: python manage.py runsnappea",
    "backlog": "The oldest ready task has waited for {oldest:,.0f} s. The limit is {limit:g} s.",
}
#: How many groups of failures to show, and from how many to offer the exceptions and names.
MOST_SHOWN, MOST_KINDS = 100, 1000

_KEPT = "NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running')"
_OPEN = f"status = 'ready' AND gate = {Gate.OPEN}"
_SHUT = f"""
        SELECT id FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready'
        UNION ALL SELECT id FROM snappea_task
            WHERE lane IS NOT NULL AND status = 'ready' AND gate <> {Gate.OPEN}
        UNION ALL SELECT id FROM snappea_task
            WHERE gate = {Gate.NEW} AND status = 'ready' AND lane IS NULL"""
_READY = f"SELECT id FROM snappea_task WHERE {_OPEN} UNION ALL {_SHUT}"
#: Which rows are in a state, written so that the partial indexes apply.
IN_STATE: dict[Status, str] = {
    Status.READY: f"snappea_task.id IN ({_READY})",
    Status.SCHEDULED: "status = 'scheduled'",
    **{
        status: f"status = '{status}' AND {_KEPT}"
        for status in (Status.FAILED, Status.INTERRUPTED, Status.SUCCESSFUL, Status.CANCELLED)
    },
}
_RAISED = "snappea_task.id IN (SELECT id FROM snappea_task WHERE status = 'failed' AND exception = %s)"
_ALIKE = f"{_OPEN} AND is_async = alike.is_async AND queue = alike.queue AND priority = alike.priority"
_QUEUES = statement(f"""
    {first_of_each(_OPEN, "is_async", "queue", "priority DESC")}
    SELECT queue, (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE {_ALIKE} LIMIT ?) AS counted), 0,
        (SELECT min(since) FROM (SELECT coalesce(run_after, enqueued_at) AS since FROM snappea_task
            WHERE {_ALIKE} ORDER BY {{PLACE}} LIMIT ?) AS eldest)
    FROM first JOIN snappea_task AS alike ON alike.id = first.id
    UNION ALL SELECT queue, 0, count(*), NULL FROM (SELECT queue FROM snappea_task
        WHERE lane IS NOT NULL AND status = 'ready' AND gate <> {{OPEN}}
        ORDER BY lane LIMIT ?) AS few GROUP BY queue
    UNION ALL SELECT queue, 0, 0, {{untyped}}since FROM snappea_pause""")
_NAMES = statement("""
    SELECT task_name, count(*) FROM (SELECT task_name FROM snappea_task
        WHERE {CLAIMABLE} ORDER BY is_async, queue, priority DESC LIMIT ?) AS few GROUP BY task_name""")
_KINDS_OF_FAILURE = statement(f"""
    {first_of_each("status = 'failed'", "exception", "place", "task_name")}
    SELECT exception, task_name FROM first JOIN snappea_task ON snappea_task.id = first.id LIMIT ?""")
#: The failures of a group. `kind`: a row with its columns.
OF_KIND = """status = 'failed' AND exception = kind.exception AND place = kind.place
    AND task_name = kind.task_name"""
_FAILURES = statement(f"""
    {first_of_each("status = 'failed'", "exception", "place", "task_name")}
    SELECT exception, place, task_name, {counted(f"SELECT 1 FROM snappea_task WHERE {OF_KIND}")} AS number
    FROM first JOIN snappea_task AS kind ON kind.id = first.id ORDER BY number DESC""")
_IN_FLIGHT = statement("""
    SELECT id, claims, task_name, queue, {untyped}started_at, attempts,
        progress_done, progress_total, progress_note, {untyped}is_revoked, foreman_id, {untyped}is_async
    FROM snappea_task WHERE id {ids} AND status = 'running' ORDER BY id""")
_IDS = {
    **{status: f"SELECT id FROM snappea_task WHERE {where}" for status, where in IN_STATE.items()},
    Status.READY: _READY,
    Status.RUNNING: "SELECT id FROM snappea_task WHERE id {ids} AND status = 'running'",
}
_SCHEDULES = "SELECT count(*) FROM snappea_schedule"
_FEW_COUNTS = statement(f"""SELECT {counted(_IDS[Status.FAILED])}, ({_SCHEDULES}),
    {counted(_IDS[Status.RUNNING])}, {counted(" UNION ALL ".join(_IDS[status] for status in IN_STATE))}""")
_READY_IDS = tuple(
    statement(f"SELECT id FROM ({_READY}) AS waiting ORDER BY +id {way} LIMIT ? OFFSET ?")
    for way in ("", "DESC")
)
_ALL_COUNTS = statement(f"""SELECT {", ".join(counted(_IDS[status]) for status in Status)}, ({_SCHEDULES}),
    {counted(f"{_IDS[Status.FAILED]} AND finished_at >= ?")}""")
#: Used without a logbook: no Foreman has run since the machine started, or there may be several.
_RUNNING = statement("""
    SELECT id, claims, {untyped}started_at FROM snappea_task
    WHERE status = 'running' {and_claimed} LIMIT ?""")


class Running(NamedTuple):
    """A running task. `elapsed` and `limit` (its time limit) are in seconds.

    `foreman`: the number of its Foreman, if there may be several. `is_async`: it runs on the event loop.
    `is_isolated`: it runs in a process of its own, for which a thread waits.
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
    is_async: bool
    is_stuck: bool
    is_isolated: bool


class QueueState(NamedTuple):
    """A queue. `held`: how many tasks a limit holds back; `oldest`: the longest wait in seconds."""

    name: str
    ready: int
    held: int
    running: int
    oldest: float | None
    limit: int | None
    paused_since: datetime | None


class Failures(NamedTuple):
    """A group of tasks that failed in the same way."""

    exception: str
    place: str
    task_name: str
    number: int


def _db() -> RawConnection:
    return raw(connect())


def in_flight() -> Mapping[Entry, Note]:
    """Return the claims that the Foreman holds, or held when it died, with the logbook's note of each."""
    file = file_of(connect())
    notes = logbook.read(file) if file else None
    if notes is None:
        found = _db().execute(_RUNNING, (1000,)).fetchall()
        return {Entry.of(*fence): Note.BEGUN for fence in found}
    return notes


def in_state(
    tasks: QuerySet[Task], status: Status, claims: Mapping[Entry, Note] | None = None
) -> QuerySet[Task]:
    """Filter tasks by state, with an index. `claims`: the claims in flight, if known."""
    if status == Status.RUNNING:
        ids = [entry.id for entry in (in_flight() if claims is None else claims)]
        return tasks.filter(pk__in=ids, status=status)
    return tasks.filter(RawSQL(IN_STATE[status], (), output_field=BooleanField()))


def raised(tasks: QuerySet[Task], exception: str) -> QuerySet[Task]:
    """Filter failed tasks by exception, with an index."""
    return tasks.filter(RawSQL(_RAISED, (exception,), output_field=BooleanField()))


def running(claims: Mapping[Entry, Note], stuck: Collection[int] = ()) -> list[Running]:
    """Return the tasks of these claims that have begun, in their order. `stuck`: ids of stuck tasks."""
    begun = {entry.id: entry for entry, note in claims.items() if note is Note.BEGUN}
    rows = _db().execute(_IN_FLIGHT, (json.dumps(list(begun)),)).fetchall()
    limits = {queue_and_name: _limit(*queue_and_name) for queue_and_name in {row[2:4] for row in rows}}
    isolated = {name for name, _ in limits if (task := find(name)) and task.is_isolated}
    found = {
        task_id: Running._make(
            (
                *(task_id, name, queue, age(since) or 0.0, limits[name, queue], *told),
                *(task_id in stuck, name in isolated),
            )
        )
        for task_id, fence, name, queue, since, *told in rows
        if begun[task_id] == Entry.of(task_id, fence, since)
    }
    return [found[task_id] for task_id in begun if task_id in found]


def _limit(name: str, queue: str) -> float | None:
    task = find(name)
    limits = (task.options.time_limit, task.soft_time_limit(queue)) if task else ()
    return min((limit for limit in limits if limit is not None), default=None)


def age(moment: str | None) -> float | None:
    """Return how long ago a time from the database is, in seconds; None if it is no time."""
    if moment is None:
        return None
    try:
        return max(0.0, (datetime.fromisoformat(now()) - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):  # written by hand
        return None


def memory_of(info: ForemanInfo) -> int:
    """Return the resident memory of a Foreman in bytes; 0 if this process cannot see it."""
    return resident(info.pid) if info.is_here else 0


def described(info: ForemanInfo) -> dict[str, Any]:
    """Return what to show about a Foreman, as plain data."""
    shown = info._asdict() | {"memory": memory_of(info)}
    del shown["is_here"]
    return shown


def ready_ids(start: int, most: int, is_falling: bool = False) -> list[int]:
    """Return the ids of ready tasks in order, without reading the rows: at most so many from `start` on."""
    found = _db().execute(_READY_IDS[is_falling], (most, start)).fetchall()
    return list(dict.fromkeys(pk for (pk,) in found))


def few_totals() -> dict[str, int]:
    """Return the numbers of `tasks`, `failed` and `running` tasks, and `schedules`.

    MOST_COUNTED + 1 means that there are more.
    """
    failed, schedules, running, others = _db().execute(_FEW_COUNTS, (_ids(in_flight()),)).fetchone()
    return {"tasks": running + others, "failed": failed, "running": running, "schedules": schedules}


def _ids(claims: Iterable[Entry]) -> str:
    return json.dumps([entry.id for entry in claims])


def totals(claims: Mapping[Entry, Note] | None = None) -> dict[str, Any]:
    """Return `counts`, the number of `schedules`, and how many tasks `failed_lately`: in the last hour.

    MOST_COUNTED + 1 means that there are more. `claims`: those in flight, if known.
    """
    numbers = _ids(in_flight() if claims is None else claims), later(now(connect()), -3600.0)
    *states, schedules, failed = _db().execute(_ALL_COUNTS, numbers).fetchone()
    found = dict(zip(map(str, Status), states, strict=True))
    return {"counts": found, "schedules": schedules, "failed_lately": failed}


def counts() -> dict[str, int]:
    """Return how many tasks are in each state; MOST_COUNTED + 1 if there are more."""
    found: dict[str, int] = totals()["counts"]
    return found


def queues(runs: Collection[Running] = (), most: int = MOST_COUNTED + 1) -> list[QueueState]:
    """Return the state of the queues, sorted by name. `runs`: the running tasks.

    `most`: how many ready tasks of a queue to count.
    """
    ready: dict[str, int] = {}
    oldest: dict[str, float] = {}
    held: dict[str, int] = {}
    stopped: dict[str, str] = {}
    for name, waiting, blocked, since in _db().execute(_QUEUES, (most, ELDERS, SAMPLE)).fetchall():
        if blocked:
            held[name] = blocked
        elif waiting:
            ready[name] = min(ready.get(name, 0) + waiting, most)
            oldest[name] = max(oldest.get(name, 0.0), age(since) or 0.0)
        else:
            stopped[name] = since
    busy = [run.queue for run in runs]
    names = {"default", *(declared_queues() or ()), *ready, *held, *stopped, *busy}
    limits = queue_limits()
    return [
        QueueState(
            name,
            ready.get(name, 0),
            held.get(name, 0),
            busy.count(name),
            oldest.get(name),
            limits.get(name),
            as_datetime(stopped[name]) if name in stopped else None,
        )
        for name in sorted(names)
    ]


def oldest_wait(states: Collection[QueueState]) -> float | None:
    """Return the longest wait of a task that could run, in seconds, or None."""
    waits = (state.oldest for state in states if state.paused_since is None and state.oldest is not None)
    return max(waits, default=None)


def waiting_names() -> tuple[dict[str, int], bool]:
    """Return how many tasks of each name wait, and whether there are more than that."""
    found = dict(_db().execute(_NAMES, (SAMPLE,)).fetchall())
    return found, sum(found.values()) >= SAMPLE


def kinds_of_failure() -> list[tuple[str, str]]:
    """Return the exceptions and names of failed tasks, without counting them."""
    return _db().execute(_KINDS_OF_FAILURE, (MOST_KINDS,)).fetchall()


def failures() -> list[Failures]:
    """Return failed tasks grouped by exception, place and task, the most frequent first.

    MOST_COUNTED + 1 means that there are more of a group.
    """
    return list(map(Failures._make, _db().execute(_FAILURES).fetchall()))


def warnings(is_alive: bool, oldest: float | None) -> list[str]:
    """Return what needs attention, in sentences. `oldest`: the longest wait of a ready task."""
    facts = {"oldest": oldest, "limit": current().WARN_BACKLOG_SECONDS}
    return [_SENTENCES[trouble].format_map(facts) for trouble in troubles(is_alive, oldest)]


def troubles(is_alive: bool, oldest: float | None) -> list[str]:
    """Return the names of what needs attention: "left_behind", "no_foreman", "backlog"."""
    if uses_celery():
        return ["left_behind"] if oldest is not None else []
    limit = current().WARN_BACKLOG_SECONDS
    is_late = limit is not None and (oldest or 0.0) > limit
    return ["no_foreman"] * (not is_alive) + ["backlog"] * is_late


def look_for_warnings() -> list[str]:
    """Return what needs attention now."""
    return warnings(bool(foremen_at_work()), oldest_wait(queues(most=1)))
