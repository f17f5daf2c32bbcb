"""The overview of the console: what is wrong, failures, workers, queues and charts on one page."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from ..errors import PauseUnconfirmed
from ..models import Status
from ..monitoring.formatting import plain
from ..monitoring.inspect import Failures
from ..monitoring.permissions import may
from ..queue import operations
from . import batches, failures, queues, task_type, workers
from .actions import note
from .charts import SPANS, history_charts, hours_of, periods_of
from .console import ConsoleAdmin, snapshot
from .health import health

#: How many groups of failures, workers and task functions to show.
GROUPS, SLOTS, NAMES = 5, 12, 100


class Page(NamedTuple):
    """A page: its tab, its address below the dashboard's, the name of its URL, its title and contents."""

    tab: str
    route: str
    name: str
    title: Any
    contents: Callable[[HttpRequest], dict[str, Any]]


class DashboardAdmin(ConsoleAdmin):
    """The overview, in place of a list, with the tabs of the failures and the workers."""

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of the pages and of the buttons."""
        wrap = self.admin_site.admin_view
        return [
            *(
                path(page.route, wrap(require_GET(partial(self.show, page=page))), name=page.name)
                for page in PAGES
            ),
            path("type/", wrap(require_GET(partial(task_type.show, self))), name="snappea_task_type"),
            *(
                path(f"{act.__name__}/", wrap(require_POST(act)), name=f"snappea_dashboard_{act.__name__}")
                for act in (self.pause, self.resume)
            ),
        ]

    def show(self, request: HttpRequest, page: Page) -> HttpResponse:
        """Show a page."""
        if not may(request, "view"):
            raise PermissionDenied

        def build() -> dict[str, Any]:
            return {"tab": page.tab, **page.contents(request)}

        live = self.live(request, f"snappea/{page.tab}.html", build)
        return self.render(request, "snappea/dashboard.html", title=page.title, live=live)

    def pause(self, request: HttpRequest) -> HttpResponse:
        """Pause a queue."""
        name = _queue_of(request)
        try:
            if operations.pause(name):
                _note(request, _("Paused"), name)
                messages.success(request, _("Queue %(queue)s was paused.") % {"queue": plain(name)})
        except PauseUnconfirmed as error:
            _note(request, _("Paused"), name)
            messages.warning(request, plain(str(error)))
        return self._back(request)

    def resume(self, request: HttpRequest) -> HttpResponse:
        """Resume a queue."""
        name = _queue_of(request)
        if operations.resume(name):
            _note(request, _("Resumed"), name)
            messages.success(request, _("Queue %(queue)s was resumed.") % {"queue": plain(name)})
        return self._back(request)

    def _back(self, request: HttpRequest) -> HttpResponse:
        """Redirect to the overview."""
        return HttpResponseRedirect(f"{self.page(PAGES[0].name)}?hours={hours_of(request)}")


def overview(request: HttpRequest) -> dict[str, Any]:
    """Return what the overview shows. `?hours=`: the time span of the charts."""
    seen, hours = snapshot(request), hours_of(request)
    periods = periods_of(hours)
    groups = [Failures(**group) for group in seen["failures"][:GROUPS]]
    rows = workers.slots(seen["foremen"], seen["running"])
    return {
        **seen,
        "warnings": [],  # the health sentence says the same
        "health": health(seen, periods, SPANS[hours]),
        "states": [(status.label, seen["counts"][status], str(status)) for status in Status],
        "queues": queues.rows(seen["queues"]),
        "batches": batches.open_batches(),
        "groups": failures.group_rows(groups),
        "more_groups": len(seen["failures"]) > GROUPS,
        "slots": workers.with_arguments(rows[:SLOTS]),
        "more_slots": max(0, len(rows) - SLOTS),
        "tasks": seen["tasks"][:NAMES],
        "more_tasks": max(0, len(seen["tasks"]) - NAMES),
        "charts": history_charts(periods, hours),
        "hours": hours,
        "spans": list(SPANS),
    }


def _note(request: HttpRequest, past: str, queue: str) -> None:
    note(request.user.pk, past, _("the queue %(name)s") % {"name": queue})


def _queue_of(request: HttpRequest) -> str:
    """Return the queue that the form names, if the user may change tasks."""
    if not may(request, "change") or "queue" not in request.POST:
        raise PermissionDenied
    return request.POST["queue"][:600]


PAGES = (
    Page("overview", "", "snappea_dashboard_changelist", gettext_lazy("Overview"), overview),
    Page("failures", "failures/", "snappea_failures", gettext_lazy("Failures"), failures.contents),
    Page("workers", "workers/", "snappea_workers", gettext_lazy("Workers"), workers.contents),
)
