"""The schedules in the admin: their next and last runs, and actions to pause, resume and fire them."""

from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern

from .. import schedules
from ..errors import SnappeaError
from ..models import Schedule
from ..monitoring.formatting import plain
from .actions import note
from .columns import ago
from .guarded import GuardedAdmin


def schedule(row: Schedule) -> str:
    name = plain(row.name)
    return name if row.name == row.task_name else f"{name} ({plain(row.task_name)})"


def when(row: Schedule) -> str:
    is_interval = row.expression.startswith("every")
    return row.expression if is_interval else f"{row.expression} ({row.timezone})"


def next_run(row: Schedule) -> str:
    return "paused" if row.is_paused else ago(row.next_run)


def last_run(row: Schedule) -> str:
    return ago(row.last_run)


def outcome(row: Schedule) -> str:
    return plain(row.outcome()[:200])


class ScheduleAdmin(GuardedAdmin):
    """The list of schedules. They are declared in code, so users cannot edit, add or delete them."""

    actions: Any = ("pause", "resume", "fire")
    list_display: Any = (schedule, when, next_run, last_run, outcome)
    list_display_links = None
    list_filter: ClassVar[Any] = ("is_paused",)
    ordering: ClassVar[Any] = ("name",)
    search_fields = ("name", "task_name")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup.partition("__")[0] == "is_paused"  # others could be used to guess arguments

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Schedules", **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        return [url for url in super().get_urls() if url.name == "snappea_schedule_changelist"]

    @admin.action(description="Pause", permissions=["change"])
    def pause(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        _decide(request, chosen, "paused", schedules.pause)

    @admin.action(description="Resume", permissions=["change"])
    def resume(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        _decide(request, chosen, "resumed", schedules.resume)

    @admin.action(description="Fire now", permissions=["change"])
    def fire(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        _decide(request, chosen, "fired", schedules.fire)


def _decide(
    request: HttpRequest, chosen: QuerySet[Schedule], past: str, act: Callable[[str], object]
) -> None:
    for row in chosen:
        name = plain(row.name)
        try:
            act(row.name)
        except (SnappeaError, LookupError, TypeError, ValueError) as error:  # the errors of `delay()`
            why = plain(schedules.reason(row.task_name, error))
            messages.error(request, f"Not {past}: {name}: {why}")
        else:
            messages.success(request, f"{past.capitalize()}: {name}.")
            note(request, past, f"the schedule {name}", row.pk, of=Schedule)
