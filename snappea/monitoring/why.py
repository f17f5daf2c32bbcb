"""Why a task waits, in one sentence."""

from collections.abc import Sequence
from typing import NamedTuple

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conf import current, uses_celery
from ..models import WAITING, Gate, Status, Task
from ..queue import groups
from ..queue.clock import as_datetime
from ..queue.database import connect, raw
from ..queue.dialects import statement
from ..queue.foremen import foremen_at_work
from ..queue.operations import paused
from ..tasks.discovery import find
from ..tasks.function import is_sensitive
from . import inspect
from .formatting import duration, number, plain, when

#: How many tasks before a task are counted.
MOST = 1000
_BEFORE = statement("""
    SELECT (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE {CLAIMABLE}
            AND is_async = ? AND queue = ? AND priority > ? LIMIT ?) AS more_urgent)
        + (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE {CLAIMABLE}
            AND is_async = ? AND queue = ? AND priority = ? AND {PLACE} < ? LIMIT ?) AS older)""")
_OF_GROUP = statement("""
    SELECT id FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND status = 'running' LIMIT ?""")


class Reason(NamedTuple):
    """Why a task waits. `ids`: the running tasks that it waits for."""

    text: str
    ids: Sequence[int] = ()


def why_it_waits(task: Task) -> Reason | None:
    """Return why a task waits; None if it does not. It reads a few rows by an index, and predicts nothing."""
    if task.status not in WAITING:
        return None
    if uses_celery():
        return Reason(inspect.LEFT_BEHIND)
    if not foremen_at_work():
        return Reason(_("No Foreman runs."))
    if (due := task.run_after) is not None and (seconds := (due - timezone.now()).total_seconds()) > 0:
        return Reason(_("It is due in %(span)s.") % {"span": duration(seconds)})
    if (since := paused().get(task.queue)) is not None:
        return Reason(_("Its queue has been paused since %(time)s.") % {"time": when(as_datetime(since))})
    return _limit_of_queue(task) or _limit_of_group(task) or _tasks_before(task)


def _limit_of_queue(task: Task) -> Reason | None:
    limit = (current().QUEUES or {}).get(task.queue, {}).get("max_concurrency")
    if limit is None:
        return None
    running = inspect.in_state(Task.objects.filter(queue=task.queue), Status.RUNNING)
    ids = list(running.values_list("pk", flat=True)[: int(limit)])
    said = _("Its queue may run %(limit)s at a time.") % {"limit": limit}
    return Reason(said, ids) if len(ids) >= limit else None


def _limit_of_group(task: Task) -> Reason | None:
    if task.gate == Gate.OPEN or (task.gate == Gate.NEW and task.lane is None):
        return None
    if task.gate == Gate.ADDRESSED:
        return Reason(_("Only the Foreman with the number %(id)s may run it.") % {"id": task.foreman_id})
    db, own = raw(connect()), groups.Limits(task.lane_limit, task.lane_interval, task.lane_burst)
    lane, name = task.lane or "", task.task_name
    limit, interval, burst = groups.in_force(own, lane, name, groups.changed(db))
    ids = [pk for (pk,) in db.execute(_OF_GROUP, (lane, MOST if limit is None else limit)).fetchall()]
    if limit is not None and len(ids) >= limit:
        said = _("Its concurrency group is full: it may run %(limit)s at a time.") % {"limit": limit}
    elif interval and burst is not None:
        rate = {"span": duration(interval), "burst": number(burst)}
        said = (
            _("Its rate limit allows one start every %(span)s, and %(burst)s at once after a pause.") % rate
        )
    elif interval:
        span = duration(interval)
        said = _("Its rate limit allows one start every %(span)s.") % {"span": span}
    else:
        return Reason(_("Other tasks of its concurrency group come first."), ids)
    return Reason(_with_key(said, task), ids)


def _with_key(said: str, task: Task) -> str:
    key = (task.lane or "").removeprefix(f"{task.task_name}:")
    if key == task.lane or is_sensitive(task, find(task.task_name)):
        return said
    return _("%(reason)s The limit is that of the key %(key)s.") % {"reason": said, "key": plain(key)}


def _tasks_before(task: Task) -> Reason:
    of = task.is_async, task.queue, task.priority
    place = task.pk if task.turn is None else task.turn
    (count,) = raw(connect()).execute(_BEFORE, (*of, MOST, *of, place, MOST)).fetchone()
    if not count:
        return Reason(_("It is the next of its queue, and waits for a free worker that serves the queue."))
    said = ngettext("%(n)s task of its queue is before it.", "%(n)s tasks of its queue are before it.", count)
    return Reason(said % {"n": f"{number(MOST)}+" if count >= MOST else count})
