"""The frame of the console's pages: the tabs, the part that refreshes itself, and the link to every page."""

import hashlib
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template import Context
from django.template.loader import get_template
from django.template.response import TemplateResponse
from django.utils.cache import add_never_cache_headers, get_conditional_response, patch_vary_headers
from django.utils.safestring import SafeString
from django.utils.timezone import get_current_timezone_name
from django.utils.translation import get_language, gettext_lazy

from .. import stats
from ..monitoring import inspect
from ..monitoring.formatting import capped, number
from ..monitoring.permissions import may
from ..monitoring.shared import shared
from ..queue.database import connect
from ..queue.foremen import foremen_at_work
from .guarded import GuardedAdmin

#: How often a page refreshes itself, in seconds: by the script, and without JavaScript.
REFRESH, RELOAD = 2, 10
#: The header by which the script asks for the live part alone.
LIVE = "X-Snappea-Live"
#: The cookie that stops the refreshing.
PAUSED = "snappea_paused"


class Tab(NamedTuple):
    """A tab: its name, the name of its page's URL, and its label."""

    name: str
    page: str
    label: Any


TABS = (
    Tab("overview", "snappea_dashboard_changelist", gettext_lazy("Overview")),
    Tab("tasks", "snappea_task_changelist", gettext_lazy("Tasks")),
    Tab("failures", "snappea_failures", gettext_lazy("Failures")),
    Tab("schedules", "snappea_schedule_changelist", gettext_lazy("Schedules")),
    Tab("workers", "snappea_workers", gettext_lazy("Workers")),
)


class ConsoleAdmin(GuardedAdmin):
    """A page of the console. `tab`: the name of the tab that it belongs to."""

    tab = ""

    class Media:
        css = {"all": ["snappea/console.css"]}
        js = ["snappea/console.js", "snappea/console_charts.js"]

    def render(
        self, request: HttpRequest, template: str, *, title: str, live: str = "", **context: Any
    ) -> HttpResponse:
        """Return a page, or only its live part if the script asks for it.

        `live`: what `live()` returned. The template extends "snappea/console.html".
        """
        if request.GET.get("refresh") in ("0", "1"):
            return _set_paused(request)
        if live and LIVE in request.headers:
            return _fragment(request, live)
        page = {
            **self.admin_site.each_context(request),
            **self._allowed(request),
            "title": title,
            "live": live,
            "refresh": REFRESH * 1000 if live and not is_paused(request) else 0,
            "reload": RELOAD,
            "toggle": _with_query(request, refresh="1" if is_paused(request) else "0"),
            "opts": self.opts,
            "media": self.media,
            "is_popup": False,
            "tabs": "" if live else self._tabs(request),
            "warnings": [] if live else _warnings(request),
            "search_page": self.page("snappea_task_changelist"),
            **context,
        }
        request.current_app = self.admin_site.name
        response = TemplateResponse(request, template, page)
        add_never_cache_headers(response)
        patch_vary_headers(response, [LIVE])
        return response

    def live(self, request: HttpRequest, template: str, build: Callable[[], dict[str, Any]]) -> str:
        """Render the tabs and the part of a page that refreshes itself. All viewers share it for a second.

        `build` returns the template's context, perhaps with its `tab` or what `counted()` returns. Neither
        may depend on the user, but for the permissions.
        """
        allowed = self._allowed(request)
        key = (
            *(database(), self.admin_site.name, request.path, request.META.get("QUERY_STRING", "")),
            *(get_language(), get_current_timezone_name(), *allowed.values()),
        )

        def render() -> SafeString:
            context = {"template": template, **allowed, **build()}
            context["tabs"] = self._tabs(request, **context)
            if "warnings" not in context:
                context["warnings"] = _warnings(request)
            # without the request: what its context processors add depends on the user
            bound: Any = Context(context)
            bound.request = SimpleNamespace(current_app=self.admin_site.name)  # for {% url %}
            found: Any = get_template("snappea/live.html")
            return SafeString(found.template.render(bound))

        return shared(key, render, is_fresh=_has_messages(request))

    def _allowed(self, request: HttpRequest) -> dict[str, bool]:
        return {"may_change": may(request, "change"), "may_delete": may(request, "delete")}

    def _tabs(self, request: HttpRequest, tab: str = "", **context: Any) -> list[tuple[Tab, str, str, bool]]:
        here, counts = tab or self.tab, context.get("counts")
        known = {**context, **counts, "tasks": sum(counts.values())} if counts else few_counted(request)
        labels = _labels(known)
        return [(one, self.page(one.page), labels.get(one.name, ""), one.name == here) for one in TABS]


def counted(request: HttpRequest) -> dict[str, Any]:
    """Return the `inspect.totals()`, which all pages share for a second."""
    return shared(("counts", database()), inspect.totals, is_fresh=_has_messages(request))


def few_counted(request: HttpRequest) -> dict[str, int]:
    """Return the `inspect.few_totals()`, which all pages share for a second."""
    return shared(("few", database()), inspect.few_totals, is_fresh=_has_messages(request))


def snapshot(request: HttpRequest) -> dict[str, Any]:
    """Return a `stats.snapshot()` that all pages share for a second."""
    return shared(("snapshot", database()), stats.snapshot, is_fresh=_has_messages(request))


def queues(request: HttpRequest) -> list[inspect.QueueState]:
    """Return the queues, without how many tasks are ready or run, which all pages share for a second."""
    return shared(("queues", database()), partial(inspect.queues, most=1), is_fresh=_has_messages(request))


def _warnings(request: HttpRequest) -> list[str]:
    return inspect.warnings(bool(foremen_at_work()), inspect.oldest_wait(queues(request)))


def database() -> str:
    """Return the name of the queue's database, which what is shared depends on."""
    return str(connect().settings_dict["NAME"])


def is_paused(request: HttpRequest) -> bool:
    """Return whether the user has paused the refreshing of the pages."""
    return request.COOKIES.get(PAUSED) == "1"


def _labels(counts: dict[str, Any]) -> dict[str, str]:
    workers = sum(foreman.workers for foreman in foremen_at_work())
    return {
        "tasks": capped(counts["tasks"]),
        "failures": capped(counts["failed"]),
        "schedules": number(counts["schedules"]),
        "workers": f"{number(counts['running'])} / {number(workers)}",
    }


def _has_messages(request: HttpRequest) -> bool:
    """Return whether the user has just done something, and so must see its effect."""
    return bool(len(getattr(request, "_messages", ())))


def _with_query(request: HttpRequest, **changed: str) -> str:
    """Return the address of the page with a changed query."""
    kept = {key: values for key, values in request.GET.lists() if key != "refresh"}
    query = urlencode(kept | changed, doseq=True)
    return f"{request.path}?{query}" if query else request.path


def _set_paused(request: HttpRequest) -> HttpResponse:
    """Remember that the user pauses or resumes the refreshing, for all pages."""
    response = HttpResponseRedirect(_with_query(request))
    if request.GET["refresh"] == "0":
        response.set_cookie(PAUSED, "1", max_age=365 * 86_400, samesite="Lax", secure=request.is_secure())
    else:
        response.delete_cookie(PAUSED)
    return response


def _fragment(request: HttpRequest, live: str) -> HttpResponse:
    """Return the live part; 304 if the browser has it."""
    etag = f'"{hashlib.sha256(live.encode()).hexdigest()[:32]}"'
    response = get_conditional_response(request, etag=etag) or HttpResponse(live)
    add_never_cache_headers(response)
    response["ETag"] = etag
    return response
