"""The dashboard: Foremen, running tasks, queues, charts, tasks and failures on one page.

The server renders the page. Every two seconds a small script replaces the parts that have changed; without
JavaScript the browser reloads the page.
"""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_GET, require_POST

from .. import stats
from ..errors import PauseUnconfirmed
from ..models import LISTS, Status, Task
from ..monitoring import inspect
from ..monitoring.formatting import plain
from ..monitoring.permissions import may
from ..queue import operations
from .actions import VERBS, decide, note
from .charts import history_charts
from .guarded import GuardedAdmin

#: The time spans of the charts in hours, and the minutes per point.
SPANS = {1: 1, 6: 6, 24: 24}
POINTS = 60
#: How many tasks are shown at most.
MOST_ROWS = 100
#: How often the page reloads without JavaScript, in seconds.
RELOAD = 10
#: The columns by which failures are grouped.
_GROUP = ("exception", "place", "task_name")


class DashboardAdmin(GuardedAdmin):
    """The dashboard, in place of a list."""

    class Media:
        css = {"all": ["snappea/console.css"]}
        js = ["snappea/dashboard.js", "snappea/console_charts.js"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of the page and its buttons."""
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(require_GET(self.show)), name="snappea_dashboard_changelist"),
            *(
                path(f"{act.__name__}/", wrap(require_POST(act)), name=f"snappea_dashboard_{act.__name__}")
                for act in (self.pause, self.resume, self.requeue, self.terminate)
            ),
        ]

    def show(self, request: HttpRequest) -> HttpResponse:
        if not may(request, "view"):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            **self._contents(_hours(request)),
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

    def _contents(self, hours: int) -> dict[str, Any]:
        seen = stats.snapshot()
        for run in seen["running"]:
            total = run["total"]
            run["share"] = f"{min(max((run['done'] or 0) / total, 0), 1):.4f}" if total else None
        for group in seen["failures"]:
            query = urlencode({key: group[key] for key in _GROUP})
            group["address"] = f"{self._list(Status.FAILED)}?{query}"
        return {
            **seen,
            "warnings": inspect.warnings(bool(seen["foremen"]), seen["oldest"]),
            "tiles": [
                (status.label, seen["counts"][status], self._list(status), str(status)) for status in Status
            ],
            "tasks": seen["tasks"][:MOST_ROWS],
            "more_tasks": max(0, len(seen["tasks"]) - MOST_ROWS),
            "charts": history_charts(stats.history(POINTS, SPANS[hours]), SPANS[hours], hours),
            "hours": hours,
            "spans": list(SPANS),
            "queue_page": self._list(Status.READY),
            "task_pages": f"{self.admin_site.name}:snappea_activetask_change",
        }

    def _list(self, status: Status) -> str:
        return self.address("changelist", of=LISTS[status])

    # buttons

    def pause(self, request: HttpRequest) -> HttpResponse:
        name = _require(request, "queue")
        try:
            if operations.pause(name):
                note(request, "paused", f"the queue {name}")
                messages.success(request, f"Queue {plain(name)} was paused.")
        except PauseUnconfirmed as error:
            note(request, "paused", f"the queue {name}")
            messages.warning(request, plain(str(error)))
        return self._back(request)

    def resume(self, request: HttpRequest) -> HttpResponse:
        name = _require(request, "queue")
        if operations.resume(name):
            note(request, "resumed", f"the queue {name}")
            messages.success(request, f"Queue {plain(name)} was resumed.")
        return self._back(request)

    def requeue(self, request: HttpRequest) -> HttpResponse:
        """Requeue the tasks of a group of failures."""
        alike = {key: _require(request, key) for key in _GROUP}
        failed = Task.objects.filter(**alike).extra(where=["status = 'failed'"])
        decide(request, VERBS["requeue"], list(failed.order_by("pk").values_list("pk", flat=True)))
        return self._back(request)

    def terminate(self, request: HttpRequest) -> HttpResponse:
        number = _require(request, "task")
        decide(request, VERBS["terminate"], [int(number)] if number.isdecimal() and len(number) < 19 else [])
        return self._back(request)

    def _back(self, request: HttpRequest) -> HttpResponse:
        return HttpResponseRedirect(f"{self.address('changelist')}?hours={_hours(request)}")


def _require(request: HttpRequest, key: str) -> str:
    """Return a value of the form, if the user may change tasks."""
    if not may(request, "change") or key not in request.POST:
        raise PermissionDenied
    return request.POST[key][:600]


def _hours(request: HttpRequest) -> int:
    asked = request.POST.get("hours") or request.GET.get("hours") or ""
    return int(asked) if asked.isdecimal() and int(asked) in SPANS else min(SPANS)
