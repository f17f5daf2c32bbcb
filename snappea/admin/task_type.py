"""The page of a task function: charts, run times, failures, waiting and running tasks, options, schedules."""

import dataclasses
import inspect
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from .. import limits
from ..models import Gate, Schedule, Status
from ..monitoring import inspect as monitoring
from ..monitoring.formatting import capped, number, plain
from ..monitoring.inspect import age
from ..monitoring.permissions import may
from ..queue.database import connect, raw
from ..queue.dialects import statement
from ..stats import Histogram, at_work, border
from ..tasks.discovery import find
from ..tasks.function import TaskFunction
from ..tasks.options import Options
from .charts import SPANS, TIMES, history_charts, hours_of, periods_of, time_step
from .console import ConsoleAdmin
from .failures import group_rows
from .search import Search
from .workers import slots, with_arguments

#: How many running tasks and groups of failures to show, and how many rows of each state to look at.
SLOTS, GROUPS, ROWS = 20, 10, 1000
MOST_CHARACTERS = 255
#: Which rows to look at, the newest of the kept ones. Those that a limit holds back are "held".
_LOOKED_AT = {
    "ready": f"status = 'ready' AND gate = {Gate.OPEN} ORDER BY is_async, queue, priority DESC",
    "held": f"lane IS NOT NULL AND status = 'ready' AND gate <> {Gate.OPEN} ORDER BY lane",
    "scheduled": "status = 'scheduled' ORDER BY run_after",
    **{
        str(status): f"{monitoring.IN_STATE[status]} ORDER BY finished_at DESC"
        for status in (Status.INTERRUPTED, Status.SUCCESSFUL, Status.CANCELLED)
    },
}
_COUNTS = statement(
    " UNION ALL ".join(
        f"""
    SELECT '{kind}', count(*), count(since), min(since) FROM (
        SELECT CASE WHEN task_name = ? THEN coalesce(run_after, enqueued_at) END AS since
        FROM snappea_task WHERE {rows} LIMIT {ROWS}) AS few_{kind}"""
        for kind, rows in _LOOKED_AT.items()
    )
    + " UNION ALL SELECT 'total', done, failed, NULL FROM snappea_total WHERE task_name = ?"
)


def show(admin: ConsoleAdmin, request: HttpRequest) -> HttpResponse:
    """Show what is known about a name. `?name=`: the name; `?hours=`: the time span of the charts."""
    if not may(request, "view"):
        raise PermissionDenied
    name = request.GET.get("name", "").replace("\0", "")[:MOST_CHARACTERS]
    if not name:
        return HttpResponseRedirect(admin.page("snappea_dashboard_changelist"))
    live = admin.live(request, "snappea/task_type_live.html", partial(_contents, request, name))
    context = {"name": name, "is_known": find(name) is not None, "query": _search(name).text}
    return admin.render(request, "snappea/task_type.html", title=plain(name), live=live, **context)


def _contents(request: HttpRequest, name: str) -> dict[str, Any]:
    hours = hours_of(request)
    _foremen, running = at_work(monitoring.in_flight())
    runs = [run._asdict() for run in running if run.task_name == name]
    failures = [group for group in monitoring.failures() if group.task_name == name]
    periods = periods_of(hours, name)
    times = sum((period.run_times for period in periods), Histogram())
    task = find(name)
    counts, oldest, total = _counts(name)
    counts["running"] = number(len(runs))
    counts["failed"] = capped(sum(group.number for group in failures))
    return {
        "tab": "tasks",
        "name": name,
        "states": [
            (status.label, counts[status], status.value, _search(name, status).text) for status in Status
        ],
        "held": counts["held"] if counts["held"] != "0" else "",
        "oldest": oldest,
        "total": total,
        "charts": history_charts(periods, hours),
        "hours": hours,
        "spans": list(SPANS),
        "times": list(bars(Histogram(times))),
        "groups": group_rows(failures[:GROUPS]),
        "more_groups": max(0, len(failures) - GROUPS),
        "slots": with_arguments(slots([], runs[:SLOTS])),
        "more_slots": max(0, len(runs) - SLOTS),
        "is_known": task is not None,
        "options": list(_options(task)) if task else [],
        "limits": list(_changed_limits(task)) if task and task.options.is_limited else [],
        "source": _source(task) if task else "",
        "doc": plain((inspect.getdoc(task.function) or "").partition("\n")[0]) if task else "",
        "schedules": Schedule.objects.filter(task_name=name).order_by("name"),
    }


def _search(name: str, status: Status | None = None) -> Search:
    return Search().with_term("state", status and status.value).with_term("task", name)


def _counts(name: str) -> tuple[dict[str, str], float | None, dict[str, int]]:
    """Return how many tasks are in each state but running and failed, the longest wait in s, and totals."""
    rows = raw(connect()).execute(_COUNTS, [name] * (len(_LOOKED_AT) + 1)).fetchall()
    total = {"done": rows[-1][1], "failed": rows[-1][2]} if rows[-1][0] == "total" else {}
    waits = [wait for kind, _, _, since in rows if kind in ("ready", "held") and (wait := age(since))]
    counts = {kind: f"{number(count)}{'+' * (looked == ROWS)}" for kind, looked, count, _ in rows}
    return counts, max(waits, default=None), total


def bars(times: Histogram) -> Iterator[tuple[str, str, int, str]]:
    """Yield the bars of a histogram between round times: from, to, the number, and the length from 0 to 1."""
    if not times:
        return
    highest = border(max(times) + 1)
    borders = [time_step(border(min(times)) / 2.5)]
    while borders[-1] < highest:
        borders.append(time_step(borders[-1] * 1.01))
    below = [0, *(round(times.below(high)) for high in borders[1:])]
    counts = [after - before for before, after in pairwise(below)]
    shown = [at for at, count in enumerate(counts) if count]
    for at in range(shown[0], shown[-1] + 1) if shown else ():
        share = f"{counts[at] / max(counts):.4f}"
        low, high = borders[at : at + 2]
        yield TIMES.tick(low, low), TIMES.tick(high, high), counts[at], share


def _options(task: TaskFunction[..., Any]) -> Iterator[tuple[str, str]]:
    """Yield the options that are not the defaults."""
    for field in dataclasses.fields(Options):
        value = getattr(task.options, field.name)
        if field.name != "name" and value != field.default:
            yield field.name, plain(_told(value))


def _changed_limits(task: TaskFunction[..., Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the limits of a task that were changed at run time: the option, the key or "", and the value."""
    name, hides_keys = task.name, task.options.sensitive
    for lane, changed in limits.changed().items():
        key = "" if lane == name else lane.removeprefix(f"{name}:")
        if lane == name or (key != lane and not hides_keys):
            for option, value in changed.items():
                yield option, plain(key), str(value)


def _told(value: Any) -> str:
    if isinstance(value, (tuple, list, set, frozenset)):
        return ", ".join(map(_told, value))
    return str(getattr(value, "__qualname__", value))


def _source(task: TaskFunction[..., Any]) -> str:
    function: Any = inspect.unwrap(task.function)
    code = getattr(function, "__code__", None)
    line = code.co_firstlineno if code else 0
    return plain(_("%(module)s, line %(line)d") % {"module": function.__module__, "line": line})
