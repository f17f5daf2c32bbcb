"""The dashboard: who is at work, what runs, what waits, what failed, and the last hours as charts.

A page that the server renders whole. A small script puts a fresh copy in its place every two seconds;
without it the browser loads the page anew.
"""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_GET, require_POST

from .. import stats
from ..errors import PauseUnconfirmed
from ..models import Status, Task
from ..monitoring import inspect
from ..monitoring.formatting import duration, plain
from ..monitoring.permissions import may
from ..queue import store
from ..queue.clock import as_datetime
from ..stats import Period
from . import charts
from .actions import VERBS, decide, note
from .guarded import GuardedAdmin, readable

#: On whose pages a task is shown, by its state.
PAGES = {str(status): f"{status.label.lower()}task" for status in Status}
#: What the charts may show, in hours, and how many minutes make a point then.
SPANS = {2: 1, 6: 3, 24: 12}
POINTS = 120
#: At most so many rows of a table are shown.
MOST_ROWS = 100
#: How often the page is renewed without JavaScript, in seconds.
RELOAD = 10


class DashboardAdmin(GuardedAdmin):
    """All tasks at a glance: its list is the dashboard."""

    class Media:
        js = ["snappea/dashboard.js"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """There is nothing to change about the dashboard itself."""
        return False

    has_delete_permission = has_change_permission

    def get_urls(self) -> list[URLPattern]:
        """Return the page, and what its buttons do."""
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(require_GET(self.show)), name="snappea_dashboard_changelist"),
            path("pause/", wrap(require_POST(self.pause)), name="snappea_dashboard_pause"),
            path("resume/", wrap(require_POST(self.resume)), name="snappea_dashboard_resume"),
            path("requeue/", wrap(require_POST(self.requeue)), name="snappea_dashboard_requeue"),
            path("terminate/", wrap(require_POST(self.terminate)), name="snappea_dashboard_terminate"),
        ]

    @readable
    def show(self, request: HttpRequest) -> HttpResponse:
        """Show the page."""
        if not may(request, "view"):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            **_contents(self.admin_site.name, _hours(request)),
            "title": "Dashboard",
            "opts": self.opts,
            "media": self.media,
            "may_change": may(request, "change"),
            "reload": RELOAD if request.GET.get("refresh") != "0" else None,
            "is_popup": False,
        }
        response = TemplateResponse(request, "snappea/dashboard.html", context)
        add_never_cache_headers(response)
        return response

    # what the buttons do

    def pause(self, request: HttpRequest) -> HttpResponse:
        """Pause a queue."""
        name = self._require(request, "queue")
        try:
            if store.pause(name):
                self._say(request, "Paused", name)
        except PauseUnconfirmed as error:
            note(request, "Paused", f"the queue {name}")
            messages.warning(request, plain(str(error)))
        return self._back(request)

    def resume(self, request: HttpRequest) -> HttpResponse:
        """Resume a queue."""
        name = self._require(request, "queue")
        if store.resume(name):
            self._say(request, "Resumed", name)
        return self._back(request)

    def requeue(self, request: HttpRequest) -> HttpResponse:
        """Requeue all tasks that failed in the same way."""
        alike = {key: self._require(request, key) for key in ("exception", "place", "task_name")}
        failed = Task.objects.filter(**alike).extra(where=["status = 'failed'"])
        decide(request, VERBS["requeue"], list(failed.order_by("pk").values_list("pk", flat=True)))
        return self._back(request)

    def terminate(self, request: HttpRequest) -> HttpResponse:
        """Ask for the end of a task that runs."""
        number = self._require(request, "task")
        decide(request, VERBS["terminate"], [int(number)] if number.isdecimal() and len(number) < 19 else [])
        return self._back(request)

    def _require(self, request: HttpRequest, key: str) -> str:
        """Return a value of the form that a user sent who may decide. Raises PermissionDenied."""
        if not may(request, "change") or key not in request.POST:
            raise PermissionDenied
        return request.POST[key][:600]

    def _say(self, request: HttpRequest, words: str, name: str) -> None:
        note(request, words, f"the queue {name}")
        messages.success(request, f"{words}: the queue {plain(name)}.")

    def _back(self, request: HttpRequest) -> HttpResponse:
        address = reverse(f"{self.admin_site.name}:snappea_dashboard_changelist")
        hours = _hours(request)
        return HttpResponseRedirect(f"{address}?hours={hours}" if hours != min(SPANS) else address)


def _hours(request: HttpRequest) -> int:
    """Return how many hours the charts are to show."""
    asked = request.POST.get("hours") or request.GET.get("hours") or ""
    return int(asked) if asked.isdecimal() and int(asked) in SPANS else min(SPANS)


def _contents(site: str, hours: int) -> dict[str, Any]:
    """Return what the page shows."""
    seen = stats.snapshot()
    for run in seen["running"]:
        total = run["total"]
        run["share"] = f"{min(max((run['done'] or 0) / total, 0), 1):.4f}" if total else None
    failures = [
        {**group, "address": _address(site, "failed", group)} for group in seen["failures"][:MOST_ROWS]
    ]
    tiles = [(status.label, seen["counts"][status], _address(site, status), str(status)) for status in Status]
    return {
        **seen,
        "warnings": inspect.warnings(bool(seen["foremen"]), seen["oldest"]),
        "tiles": tiles,
        "failures": failures,
        "more_failures": max(0, len(seen["failures"]) - MOST_ROWS),
        "tasks": seen["tasks"][:MOST_ROWS],
        "more_tasks": max(0, len(seen["tasks"]) - MOST_ROWS),
        "charts": _charts(stats.history(POINTS, SPANS[hours]), SPANS[hours], hours),
        "hours": hours,
        "spans": list(SPANS),
        "queue_page": _address(site, "ready"),
        "task_pages": f"{site}:snappea_activetask_change",
    }


def _address(site: str, status: str, group: dict[str, Any] | None = None) -> str:
    address = reverse(f"{site}:snappea_{PAGES[status]}_changelist")
    chosen = {key: group[key] for key in ("exception", "place", "task_name")} if group else {}
    return f"{address}?{urlencode(chosen)}" if chosen else address


def _charts(periods: list[Period], minutes: int, hours: int) -> list[charts.Chart]:
    """Return the charts of the last hours."""
    times = [_clock(period.minute) for period in periods]
    done, failed = [period.done for period in periods], [period.failed for period in periods]
    per = "minute" if minutes == 1 else f"{minutes} minutes"
    backlogs = [period.backlog for period in periods]
    known = [backlog for backlog in backlogs if backlog is not None]
    said = f"In the last {hours} hours {sum(done):,} were done and {sum(failed):,} failed."
    ended = [charts.Series("done", "done", done), charts.Series("failed", "failed", failed)]
    return [
        charts.stacked("ended", f"Done and failed per {per}", said, ended, times),
        _times_chart("wait", "Wait in the queue", periods, times),
        _times_chart("run", "Run time", periods, times),
        charts.lines(
            "backlog",
            "Backlog",
            f"At most {max(known, default=0):,} tasks were ready at the end of a minute.",
            [charts.Series("backlog", "ready tasks", backlogs)],
            times,
            charts.number,
        ),
    ]


def _times_chart(kind: str, title: str, periods: list[Period], times: list[str]) -> charts.Chart:
    busy = [period if period.runs else None for period in periods]
    mean = [getattr(period, f"{kind}_mean") if period else None for period in busy]
    most = [getattr(period, f"{kind}_max") if period else None for period in busy]
    runs = sum(period.runs for period in periods)
    average = sum(getattr(period, f"{kind}_sum") for period in periods) / runs if runs else None
    longest = max((value for value in most if value is not None), default=None)
    said = f"{duration(average)} on average, {duration(longest)} at most."
    series = [charts.Series("most", "longest", most), charts.Series("mean", "mean", mean)]
    return charts.lines(kind, title, said, series, times, duration)


def _clock(minute: str) -> str:
    """Return the time of day of a minute in the database, in the time zone of the site."""
    moment = as_datetime(minute)
    return f"{timezone.localtime(moment) if timezone.is_aware(moment) else moment:%H:%M}"
