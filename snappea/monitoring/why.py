"""Why a task waits, and until when.

The decision is the Foreman's own: `groups.room_in()` for the limits of a group, `shares_of()` for queues, and
`store.line()` for the order. Nothing is predicted, except that the present rate lasts.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conf import queue_limits, uses_celery
from ..foreman.admission import shares_of
from ..models import WAITING, Gate, Status, Task
from ..queue import groups, store
from ..queue.clock import as_datetime, as_text, later, now
from ..queue.database import adapter, connect, raw
from ..queue.dialects import statement
from ..queue.foremen import foremen_at_work, is_shared
from ..queue.operations import paused
from ..queue.records import ForemanInfo
from ..tasks.discovery import find
from ..tasks.function import is_sensitive
from . import inspect
from .formatting import duration, number, plain, when

#: How many of those that come first are looked at in their order, and how many are counted.
EXACT, FAR = 200, 10_000
#: The same in a concurrency group.
MOST = 1000
#: For how many minutes to look back for the present rate.
MINUTES = 5
#: The first tasks of a group that wait, in the order in which it opens them.
_IN_GROUP = statement("""
    SELECT -priority, {PLACE}, id FROM snappea_task
    WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = ? AND {SERVED} AND NOT {IS_PAUSED}
    {FIRST_IN_LINE} LIMIT ?""")
_BEFORE = statement("""
    SELECT (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE {CLAIMABLE}
            AND is_async = ? AND queue = ? AND priority > ? LIMIT ?) AS more_urgent)
        + (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE {CLAIMABLE}
            AND is_async = ? AND queue = ? AND priority = ? AND {PLACE} < ? LIMIT ?) AS older)""")
_LIMITS = "SELECT task_name, lane_limit, lane_interval, lane_burst FROM snappea_task WHERE id = ?"
_TO_YIELD = statement("""
    SELECT count(*) FROM (SELECT id FROM snappea_task WHERE {IS_TO_YIELD} {FIRST_IN_LINE}) AS found""")
_WITH_PLACE = statement("SELECT id FROM snappea_task WHERE {HAS_PLACE} LIMIT ?")
#: Of the minutes in which tasks have ended.
_RATE = """
    SELECT sum(done + failed + retried + cancelled), 60 * count(DISTINCT minute) FROM snappea_stat
    WHERE task_name = '' AND minute >= ? AND done + failed + retried + cancelled > 0"""


class Cause(StrEnum):
    """What a task waits for."""

    CELERY = "celery"
    NO_FOREMAN = "no_foreman"
    DUE = "due"
    PAUSED = "paused"
    NOT_SERVED = "not_served"
    ADDRESSED = "addressed"
    QUEUE_FULL = "queue_full"
    GROUP_FULL = "group_full"
    RATE = "rate"
    #: The Foreman sorts it in at once.
    NEW = "new"
    BEHIND = "behind"
    NEXT = "next"


class Reason(NamedTuple):
    """Why a task waits, and until when.

    `text`: sentences in the current language. `ids`: the tasks of which one must end first. `until`: the
    earliest time at which it is no longer so; `since`: from when on. `before`: how many tasks come first, at
    most FAR. `estimate`: about how many seconds these take, at the rate of the last minutes.
    """

    cause: Cause
    text: str
    ids: Sequence[int] = ()
    until: datetime | None = None
    since: datetime | None = None
    before: int | None = None
    estimate: float | None = None


def why(task: int | Task) -> Reason | None:
    """Return why a task waits, by its id or its row; None if it does not. It reads a few rows by an index.

    >>> why(42)
    Reason(cause=<Cause.NO_FOREMAN: 'no_foreman'>, text='No Foreman runs.', ids=(), until=None, ...)
    """
    row = task if isinstance(task, Task) else Task.objects.filter(pk=task).first()
    if row is None or row.status not in WAITING:
        return None
    if uses_celery():
        return Reason(Cause.CELERY, inspect.LEFT_BEHIND)
    if not (foremen := foremen_at_work()):
        return Reason(Cause.NO_FOREMAN, _("No Foreman runs."))
    due = row.run_after if row.status == Status.SCHEDULED else None
    if due is not None and as_text(due) > now(connect()):
        return Reason(Cause.DUE, _("It waits until %(time)s.") % {"time": when(due)}, until=due)
    stopped = paused()
    if row.queue in stopped:
        since = as_datetime(stopped[row.queue])
        said = _("Its queue has been paused since %(time)s.") % {"time": when(since)}
        return Reason(Cause.PAUSED, said, since=since)
    serving = [info for info in foremen if not info.queues or row.queue in info.queues]
    if not serving:
        return Reason(Cause.NOT_SERVED, _("No Foreman serves its queue: see the option --queues."))
    if row.gate == Gate.ADDRESSED:
        said = _("Only the Foreman with the number %(id)s may run it.") % {"id": row.foreman_id}
        return Reason(Cause.ADDRESSED, said)
    with adapter(connect(), "foremen").reading() if is_shared() else nullcontext():
        served = (
            [name for info in foremen for name in info.queues] if all(one.queues for one in foremen) else []
        )
        return _of_queue(row, serving[0], stopped, served)


def _of_queue(task: Task, foreman: ForemanInfo, stopped: Collection[str], served: Sequence[str]) -> Reason:
    """Return the reason of a task in a queue that a Foreman serves. `served`: the queues of all Foremen."""
    limits, running = queue_limits(), []
    if limits:
        rows = inspect.in_state(Task.objects.all(), Status.RUNNING)
        running = list(rows.values_list("pk", "queue"))
    ids = [pk for pk, queue in running if queue == task.queue]
    limit = limits.get(task.queue)
    full = Reason(Cause.QUEUE_FULL, _("Its queue may run %(limit)s at a time.") % {"limit": limit}, ids)
    if limit is not None and len(ids) >= limit:
        return full
    if task.gate == Gate.OPEN and task.status == Status.READY:
        db, kind = raw(connect()), task.is_async
        counts = Counter(queue for _pk, queue in running)
        waiting = store.waiting_queues(db, kind)
        shares = shares_of(waiting, EXACT, foreman.queues, stopped, limits, counts)
        line = list(store.line(db, EXACT, shares, foreman.strict, kind))
        if task.pk in line or len(line) == EXACT:
            return _in_line(line.index(task.pk) if task.pk in line else _far(task, shares))
        if limit is not None and task.queue in shares:  # those before it take the last places
            return full
    reason = None if task.gate == Gate.OPEN or task.lane is None else _of_group(task, served)
    return reason or Reason(Cause.NEW, _("The Foreman is about to look at it."))


def _of_group(task: Task, queues: Sequence[str]) -> Reason | None:
    """Return the limit of its concurrency group that holds a task back; None if it may be opened now."""
    db, lane = raw(connect()), task.lane or ""
    served = json.dumps(queues) if queues else None
    blocked, new = (
        db.execute(_IN_GROUP, (lane, gate, served, served, MOST)).fetchall()
        for gate in (Gate.BLOCKED.value, Gate.NEW.value)
    )
    mine = -task.priority, task.pk if task.turn is None else task.turn, task.pk
    order, _place, first = min([mine, *blocked[:1], *new[:1]])  # its limits apply
    name, *own = db.execute(_LIMITS, (first,)).fetchone() or (task.task_name,)
    limits = groups.in_force(groups.Limits(*own), lane, name, groups.changed(db))
    moment = adapter(connect(), "foremen").clock(db) if is_shared() else now(connect())
    room = groups.room_in(db, lane, moment, limits)
    yielding = db.execute(_TO_YIELD, (lane, -order, served, served)).fetchone()[0] if room.ready else 0
    # the place of a new task is not known yet
    before = sum(row < mine for row in blocked) if task.gate == Gate.BLOCKED else 0
    if limits.limit is not None and room.places + yielding <= before:
        ids = sorted(pk for (pk,) in db.execute(_WITH_PLACE, (lane, MOST)).fetchall())
        said = _("Its concurrency group is full: it may run %(limit)s at a time.") % {"limit": limits.limit}
        return Reason(Cause.GROUP_FULL, _more(said, task, before), ids, before=before)
    if limits.interval and room.starts + yielding <= before:
        before += room.ready - yielding
        until = as_datetime(later(moment, room.wait + before * limits.interval))
        said = _("It may start at %(time)s at the earliest.") % {"time": when(until)}
        said = f"{_rate(limits)} {said}"
        return Reason(Cause.RATE, _more(said, task, before), until=until, before=before)
    return None


def _rate(limits: groups.Limits) -> str:
    facts = {"span": duration(limits.interval), "burst": number(limits.burst)}
    if limits.burst is None:
        return _("Its rate limit allows one start every %(span)s.") % facts
    return _("Its rate limit allows one start every %(span)s, and %(burst)s at once after a pause.") % facts


def _more(said: str, task: Task, before: int) -> str:
    """Add the key that a limit is for, how many tasks of the group come first, and what the limit does."""
    key = (task.lane or "").removeprefix(f"{task.task_name}:")
    if key != task.lane and not is_sensitive(task, find(task.task_name)):
        said = _("%(reason)s The limit is that of the key %(key)s.") % {"reason": said, "key": plain(key)}
    if before:
        first = ngettext(
            "%(n)s task of its group is before it.", "%(n)s tasks of its group are before it.", before
        )
        said += f" {first % {'n': _count(before, MOST)}}"
    if task.lane_discards and task.gate == Gate.NEW and not task.claims:
        said += " " + _("It is about to be discarded, as its option on_limit says.")
    return said


def _far(task: Task, shares: Iterable[str]) -> int:
    """Return about how many tasks are before one that is not among the first."""
    place, found = task.pk if task.turn is None else task.turn, 0
    for name in shares:
        of = task.is_async, name, task.priority
        rest = max(0, FAR - found)
        found += raw(connect()).execute(_BEFORE, (*of, rest, *of, place, rest)).fetchone()[0]
    return min(max(EXACT, found), FAR)


def _in_line(before: int) -> Reason:
    """Return the reason of a task that may be claimed."""
    if not before:
        said = _("It is the next one, and waits for a free worker that serves its queue.")
        return Reason(Cause.NEXT, said, before=0)
    said = ngettext(
        "%(n)s task of higher priority or an older one is before it.",
        "%(n)s tasks of higher priority or older ones are before it.",
        before,
    ) % {"n": _count(before, FAR)}
    since = later(now(connect()), -60.0 * MINUTES)
    ended, seconds = raw(connect()).execute(_RATE, (since,)).fetchone()
    if not ended:
        return Reason(Cause.BEHIND, said, before=before)
    estimate = float(before * seconds / ended)
    about = _("At the present rate, that takes about %(span)s.")
    rate = about if before < FAR else _("At the present rate, that takes more than %(span)s.")
    said = f"{said} {rate % {'span': duration(estimate, 1)}}"
    return Reason(Cause.BEHIND, said, before=before, estimate=estimate)


def _count(before: int, most: int) -> str:
    return f"{number(most)}+" if before >= most else number(before)
