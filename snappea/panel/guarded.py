"""What the lists of the admin have in common: for whom they are."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from .rights import may


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
