"""The periodic tasks in the admin: what is next, what became of the last, and a way to pause or fire one."""

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
from .guarded import GuardedAdmin, readable
from .tasks import ago


class ScheduleAdmin(GuardedAdmin):
    """A list of them. The code declares them: nobody edits, adds or deletes one here."""

    actions: Any = ("pause", "resume", "fire")
    list_display: Any = ("title", "when", "next", "last", "outcome")
    list_display_links = None
    list_filter: ClassVar[Any] = ("is_paused",)
    ordering: ClassVar[Any] = ("name",)
    search_fields = ("name", "task_name")
    sortable_by = ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow in the address what the filter offers, and no more: arguments are not to be guessed at."""
        return lookup.partition("__")[0] == "is_paused"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let nobody delete one here: it would be back at the Foreman's next start."""
        return False

    @readable
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, under its own name."""
        return super().changelist_view(request, {"title": "Schedules", **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        """Return the list as the only page."""
        return [url for url in super().get_urls() if url.name == "snappea_schedule_changelist"]

    @admin.display(description="schedule")
    def title(self, schedule: Schedule) -> str:
        """Show its name, and its task if that is called otherwise."""
        name = plain(schedule.name)
        return name if schedule.name == schedule.task_name else f"{name} ({plain(schedule.task_name)})"

    @admin.display(description="when")
    def when(self, schedule: Schedule) -> str:
        """Show its expression; with the time zone, if that counts."""
        is_steady = schedule.expression.startswith("every")
        return schedule.expression if is_steady else f"{schedule.expression} ({schedule.timezone})"

    @admin.display(description="next")
    def next(self, schedule: Schedule) -> str:
        """Show when it is due."""
        return "paused" if schedule.is_paused else ago(schedule.next_run)

    @admin.display(description="last")
    def last(self, schedule: Schedule) -> str:
        """Show when it was due the last time."""
        return ago(schedule.last_run)

    @admin.display(description="outcome")
    def outcome(self, schedule: Schedule) -> str:
        """Show what became of the last one."""
        return plain(schedule.outcome()[:200])

    @admin.action(description="Pause", permissions=["change"])
    def pause(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        """Let them enqueue nothing until they are resumed."""
        _decide(request, chosen, "paused", schedules.pause)

    @admin.action(description="Resume", permissions=["change"])
    def resume(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        """Let them go on with their next time."""
        _decide(request, chosen, "resumed", schedules.resume)

    @admin.action(description="Fire now", permissions=["change"])
    def fire(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        """Enqueue what they enqueue, now, beside their times."""
        _decide(request, chosen, "fired", schedules.fire)


def _decide(
    request: HttpRequest, chosen: QuerySet[Schedule], past: str, act: Callable[[str], object]
) -> None:
    """Do something to schedules, tell the user what came of it, and note it in the admin's log."""
    for schedule in chosen:
        name = plain(schedule.name)
        try:
            act(schedule.name)
        except (SnappeaError, LookupError, TypeError, ValueError) as error:  # as `delay()` raises
            messages.error(
                request, f"Not {past}: {name}: {plain(schedules.reason(schedule.task_name, error))}"
            )
        else:
            messages.success(request, f"{past.capitalize()}: {name}.")
            note(request, past.capitalize(), f"the schedule {name}", schedule.pk, of=Schedule)
