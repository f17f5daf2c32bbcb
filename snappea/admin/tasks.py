"""The list of tasks: states as tabs, a search, and the lists of earlier versions, which lead to it."""

from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from .. import stats
from ..models import Batch, Status, Task
from ..monitoring import inspect
from ..monitoring.formatting import capped, plain
from ..monitoring.permissions import may
from ..queue.dialects import MOST_COUNTED
from ..tasks.function import registry
from .actions import VERBS, verbs_of
from .columns import listed
from .console import ConsoleAdmin, counted, queues
from .export import export
from .guarded import GuardedAdmin
from .search import LONGEST, MOST, SECONDS, Search, SearchError, scan

ON_A_PAGE = 50
#: How far back to look for the names of tasks, in seconds, and how many to offer.
A_DAY, MOST_CHOICES = 86_400.0, 200
#: The order of the tabs.
STATES = (
    *(Status.FAILED, Status.INTERRUPTED, Status.RUNNING, Status.READY, Status.SCHEDULED),
    *(Status.SUCCESSFUL, Status.CANCELLED),
)


class View(NamedTuple):
    """What a list shows: a search, from one end or the other, a page of it."""

    search: Search
    is_reversed: bool
    page: int
    is_patient: bool

    @classmethod
    def of(cls, request: HttpRequest) -> "View":
        """Return what an address asks for. Raises SearchError."""
        asked = request.GET.get("page", "")
        page = int(asked) if asked.isdecimal() and len(asked) < 8 else 1
        return cls(
            Search(request.GET.get("q", "")), "reversed" in request.GET, max(1, page), "all" in request.GET
        )

    def address(self, **changed: Any) -> str:
        """Return the query of this list, or of one that differs; the first page, if the page is not named."""
        view = self._replace(**{"page": 1, **changed})
        asked = {
            "q": view.search.text,
            "reversed": "1" * view.is_reversed,
            "page": str(view.page) if view.page > 1 else "",
            "all": "1" * view.is_patient,
        }
        return f"?{urlencode({name: value for name, value in asked.items() if value})}"

    def ids(self, count: int | None) -> tuple[list[int], int, bool]:
        """Return the ids on the page, how many there are in all, and whether all were looked at.

        `count`: how many there are, if it is known.
        """
        ordered, start = self.search.ordered(self.is_reversed), (self.page - 1) * ON_A_PAGE
        if count is None:
            ids, is_all = scan(ordered, MOST + 1, LONGEST if self.is_patient else SECONDS)
            return ids[start : start + ON_A_PAGE], min(len(ids), MOST), is_all
        start, most = min(start, count), min(count, MOST_COUNTED)  # or an address could make it read all
        if self.search.state == Status.READY:
            ids = inspect.ready_ids(start, ON_A_PAGE, self.is_reversed)
        else:
            ids = list(ordered.values_list("pk", flat=True)[start : start + ON_A_PAGE])
        return ids, most, most == count


class TaskList(ConsoleAdmin):
    """The list of tasks. They are neither added nor edited."""

    tab = "tasks"

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of the list and of its export."""
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(require_safe(self.show)), name="snappea_task_changelist"),
            path("export/", wrap(require_safe(self.export)), name="snappea_task_export"),
        ]

    def show(self, request: HttpRequest) -> HttpResponse:
        """Show the list; with an invalid search, what is wrong with it."""
        if not may(request, "view"):
            raise PermissionDenied
        try:
            view = View.of(request)
        except SearchError as error:
            said = {"wrong": plain(str(error)), "q": plain(request.GET.get("q", ""))}
            response = self.render(request, "snappea/tasks.html", title=_("Tasks"), **said)
            response.status_code = 400
            return response
        live = self.live(request, "snappea/tasks_live.html", lambda: self._contents(request, view))
        return self.render(
            request,
            "snappea/tasks.html",
            title=str(view.search.state.label) if view.search.state else _("Tasks"),
            live=live,
            q=f"{plain(view.search.text)} ".lstrip(),
            menus=lambda: _menus(request, view),  # not for the live part
            batch=view.search.value("batch"),
            has_batches=Batch.objects.exists,
            exports=f"{self.page('snappea_task_export')}?{urlencode({'q': view.search.text})}",
        )

    def export(self, request: HttpRequest) -> HttpResponseBase:
        """Return what a search finds as a file."""
        if not may(request, "view"):
            raise PermissionDenied
        kind = request.GET.get("format", "csv")
        try:
            search = Search(request.GET.get("q", ""))
        except SearchError as error:
            return HttpResponseBadRequest(plain(str(error)), content_type="text/plain; charset=utf-8")
        if kind not in ("csv", "json"):
            return HttpResponseBadRequest(_("The formats are csv and json."), content_type="text/plain")
        return export(search, kind)

    def _contents(self, request: HttpRequest, view: View) -> dict[str, Any]:
        search, totals = view.search, counted(request) if view.search.is_plain else {}
        counts = {None: sum(totals["counts"].values()), **totals["counts"]} if totals else {}
        ids, count, is_all = view.ids(counts.get(search.state))
        rows = {
            row.pk: row for row in Task.objects.filter(pk__in=ids).defer("errors", "result", "log", "steps")
        }
        stopped = {queue.name for queue in queues(request) if queue.paused_since}
        pages = max(1, -(-(count if search.state else min(count, MOST)) // ON_A_PAGE))
        return {
            **totals,
            "view": view,
            "facets": [self._facet(view, status, counts) for status in (None, *STATES)],
            "rows": [listed(rows[pk], stopped) for pk in ids if pk in rows],
            "count": count,
            "is_more": not is_all,
            "is_short": not is_all and count < MOST,
            "verbs": [
                (verb, self.page("snappea_task_bulk", verb.name))
                for verb in (verbs_of(search.state) if search.state else VERBS.values())
            ],
            "pages": pages,
            "before": view.address(page=min(view.page - 1, pages)) if view.page > 1 else "",
            "after": view.address(page=view.page + 1) if view.page < pages else "",
            "turned": view.address(is_reversed=not view.is_reversed),
            "patient": view.address(is_patient=True),
            "is_rising": not str(search.ordered(view.is_reversed).query.order_by[0]).startswith("-"),
            "query": urlencode({"q": search.text}),
        }

    def _facet(self, view: View, status: Status | None, counts: dict[str | None, int]) -> dict[str, Any]:
        search = view.search.with_term("state", status)
        return {
            "name": status or "all",
            "label": status.label if status else _("All"),
            "address": view._replace(search=search).address(is_reversed=False, is_patient=False),
            "count": capped(counts[status]) if counts else "",
            "is_current": status == view.search.state,
        }


def _menus(request: HttpRequest, view: View) -> list[dict[str, Any]]:
    """Return the filters to choose from, without a scan, and what is chosen."""
    of_tasks = {task.options.queue for task in registry.values()}
    failed = inspect.kinds_of_failure()
    choices: dict[str, tuple[str, Iterable[str]]] = {
        "queue": (_("Queue"), {*of_tasks, *(queue.name for queue in queues(request))}),
        "task": (_("Task"), {*stats.names(A_DAY), *(name for _exception, name in failed)}),
        "exception": (_("Exception"), {exception for exception, _name in failed} - {""}),
    }
    return [
        {"label": label, "chosen": view.search.value(key), "choices": _choices(view, key, values)}
        for key, (label, values) in choices.items()
    ]


def _choices(view: View, key: str, values: Iterable[str]) -> list[tuple[str, str]]:
    """Return the label and the address of each choice."""
    found = [(_("any"), view.address(search=view.search.with_term(key, None)))]
    for value in sorted(values)[:MOST_CHOICES]:
        found.append((plain(value), view.address(search=view.search.with_term(key, value))))
    return found


class StateAdmin(GuardedAdmin):
    """The list of a state, which the admin's index shows: it redirects to the list of all tasks."""

    state: Status

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of the list and of a task, which users have bookmarked."""
        wrap, name = self.admin_site.admin_view, f"snappea_{self.opts.model_name}"
        return [
            path("", wrap(require_safe(self.to_list)), name=f"{name}_changelist"),
            path("<path:pk>/change/", wrap(require_safe(self.to_task)), name=f"{name}_change"),
        ]

    def to_list(self, request: HttpRequest) -> HttpResponse:
        """Redirect to the list, with the filters of the address."""
        search = Search().with_term("state", self.state)
        for old, key in (("exception",) * 2, ("place",) * 2, ("queue",) * 2, ("task_name", "task")):
            if (value := request.GET.get(old)) is not None:
                search = search.with_term(key, value)
        query = urlencode({"q": f"{search.text} {request.GET.get('q', '')}".strip()})
        return HttpResponseRedirect(f"{self.page('snappea_task_changelist')}?{query}")

    def to_task(self, request: HttpRequest, pk: str) -> HttpResponse:
        """Redirect to a task's page."""
        return HttpResponseRedirect(self.page("snappea_task_change", pk))
