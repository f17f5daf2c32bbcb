"""What the lists of the admin have in common: for whom they are."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from ..sieve import sifted
from .rights import may


def readable(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Let a view show rows that somebody wrote by hand, once what cannot be read is put right."""

    @wraps(view)
    def look(model_admin: Any, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        shown = partial(view, model_admin, request, *args, **kwargs)
        return sifted(shown) if request.method == "GET" else shown()

    return look


class GuardedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    """A list for those who may see tasks, in which nobody adds anything."""

    class Media:
        css = {"all": ["snappea/admin.css"]}

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
