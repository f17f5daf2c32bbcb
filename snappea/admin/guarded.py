"""What the lists of the admin have in common: for whom they are."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse, TemplateResponse
from django.urls import URLPattern
from django.utils.cache import add_never_cache_headers

from ..errors import QueueUnavailable
from ..monitoring.permissions import may
from ..queue.availability import UNUSABLE, explain, trouble
from ..queue.quarantine import quarantined


def readable(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Let a view show rows that somebody wrote by hand, once what cannot be read is put right."""

    @wraps(view)
    def look(model_admin: Any, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        shown = partial(view, model_admin, request, *args, **kwargs)
        return quarantined(shown) if request.method == "GET" else shown()

    return look


def available(view: Callable[..., HttpResponse], site: admin.AdminSite) -> Callable[..., HttpResponse]:
    """Let a view answer with 503, and why in a sentence, while the queue cannot be used."""

    @wraps(view)
    def look(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            if may(request, "view") and (broken := trouble()):
                return _unavailable(request, site, broken)
            response = view(request, *args, **kwargs)
            if isinstance(response, SimpleTemplateResponse):
                response.render()  # here, for that is when a list asks for its rows
        except UNUSABLE as error:
            return _unavailable(request, site, explain(error))
        return response

    return look


def _unavailable(request: HttpRequest, site: admin.AdminSite, why: QueueUnavailable) -> HttpResponse:
    context = {**site.each_context(request), "title": "The queue cannot be used", "why": why}
    response = TemplateResponse(request, "snappea/unavailable.html", context, status=503)
    add_never_cache_headers(response)
    return response


class GuardedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    """A list for those who may see tasks, in which nobody adds anything."""

    class Media:
        css = {"all": ["snappea/admin.css"]}

    @property
    def urls(self) -> list[URLPattern]:
        """Return the pages; each says so if the queue cannot be used."""
        found: list[URLPattern] = self.get_urls()
        for page in found:
            page.callback = available(page.callback, self.admin_site)
        return found

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show the list to those who may see tasks."""
        return may(request, "view")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let those look who may see tasks: one permission for all lists."""
        return may(request, "view")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let those decide who may change tasks."""
        return may(request, "change")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let nobody add anything here."""
        return False
