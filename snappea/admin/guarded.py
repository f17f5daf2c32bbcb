"""What all pages share: permissions, and the error page if the queue cannot be used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse, TemplateResponse
from django.urls import URLPattern, reverse
from django.utils.cache import add_never_cache_headers

from ..errors import QueueUnavailable
from ..monitoring.permissions import may
from ..queue.availability import UNUSABLE, usable, was_usable
from ..queue.database import connect, raw
from ..queue.quarantine import quarantined

#: How much of an SQLite file is mapped into memory, in bytes.
_MOST_MAPPED = 4 * 1024**3


def guarded(view: Callable[..., HttpResponse], site: admin.AdminSite) -> Callable[..., HttpResponse]:
    """Make a view return 503 with the reason if the queue cannot be used, and show invalid rows."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        def render() -> HttpResponse:
            response = view(request, *args, **kwargs)
            if isinstance(response, SimpleTemplateResponse):
                response.render()  # here, because rendering a list queries its rows
            return response

        try:
            may_view = may(request, "view")
            with usable(looks_first=may_view and not was_usable()), _mapped(may_view):
                return quarantined(render) if request.method == "GET" else render()
        except QueueUnavailable as error:
            context = {**site.each_context(request), "title": "The queue cannot be used", "why": error}
            response = TemplateResponse(request, "snappea/unavailable.html", context, status=503)
            add_never_cache_headers(response)
            return response

    return answer


@contextmanager
def _mapped(is_read: bool) -> Iterator[None]:
    """Map an SQLite file into memory in a block, so that counting and searching take half as long."""
    if not is_read or connect().vendor != "sqlite":
        yield
        return
    raw(connect()).execute(f"PRAGMA mmap_size = {_MOST_MAPPED}")
    try:
        yield
    finally:
        with suppress(*UNUSABLE):
            raw(connect()).execute("PRAGMA mmap_size = 0")


class GuardedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    """A list of rows that users neither add nor edit."""

    @property
    def urls(self) -> list[URLPattern]:
        """Return the pages, each guarded."""
        found: list[URLPattern] = self.get_urls()
        for page in found:
            page.callback = guarded(page.callback, self.admin_site)
        return found

    def page(self, name: str, *args: Any) -> str:
        """Return the URL of a page, such as "snappea_workers"."""
        return reverse(f"{self.admin_site.name}:{name}", args=args)

    # The permissions are those for tasks, for all models.

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may(request, "view")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "view")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "change")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
