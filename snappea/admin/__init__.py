"""The admin: a group for the tasks of each state, periodic tasks, and the dashboard."""

from typing import Any

from django.contrib import admin
from django.db.models import BooleanField, Exists, OuterRef, QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest
from django.utils.html import format_html

from ..models import (
    ActiveTask,
    CancelledTask,
    Dashboard,
    DirtyTask,
    FailedTask,
    FinishedTask,
    FutureTask,
    Gate,
    Pause,
    PendingTask,
    Schedule,
    Status,
    Task,
)
from ..monitoring import inspect
from ..monitoring.formatting import NOTHING, duration, plain
from .dashboard import DashboardAdmin
from .filters import ExceptionFilter, PlaceFilter, QueueFilter, TaskFilter
from .schedules import ScheduleAdmin
from .tasks import TaskAdmin, ago


class FailedAdmin(TaskAdmin):
    """What raised."""

    state = Status.FAILED
    list_filter = (ExceptionFilter, PlaceFilter, QueueFilter, TaskFilter, "finished_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        """Return them by the index of exceptions, if one is chosen."""
        if "exception" not in request.GET:
            return super().get_queryset(request)
        chosen = RawSQL(inspect.RAISED, (request.GET["exception"],), output_field=BooleanField())
        return self.all_tasks(request).filter(chosen)


class DirtyAdmin(TaskAdmin):
    """What was interrupted."""

    state = Status.INTERRUPTED
    list_filter = (QueueFilter, TaskFilter, "finished_at")


class ActiveAdmin(TaskAdmin):
    """What runs."""

    state = Status.RUNNING
    list_display = ("task", "queue_name", "since", "tries", "progress")
    ordering = ("pk",)

    @admin.display(description="started")
    def since(self, task: Task) -> str:
        """Show since when it runs."""
        return ago(task.started_at)

    @admin.display(description="progress")
    def progress(self, task: Task) -> str:
        """Show how far it is."""
        told = plain(task.progress_note[:200])
        if task.is_revoked:
            told = f"to end now {told}"
        if task.progress_done is None:
            return told or NOTHING
        if not task.progress_total:
            return f"{task.progress_done:g} {told}"
        share = task.progress_done / task.progress_total
        bar = '<progress value="{}" max="1" aria-label="Progress"></progress> {}&nbsp;% {}'
        return format_html(bar, f"{share:.4f}", f"{share * 100:.0f}", told)


class PendingAdmin(TaskAdmin):
    """What waits for a worker."""

    state = Status.READY
    list_display = ("task", "queue_name", "priority", "since", "tries", "waits_for")
    ordering = ("pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        """Tell of each whether its queue is paused."""
        is_paused = Exists(Pause.objects.filter(queue=OuterRef("queue")))
        return super().get_queryset(request).annotate(is_paused=is_paused)

    @admin.display(description="waits since")
    def since(self, task: Task) -> str:
        """Show since when it could have run."""
        return ago(task.run_after or task.enqueued_at)

    @admin.display(description="waits for")
    def waits_for(self, task: Any) -> str:
        """Show what it waits for."""
        if task.is_paused:
            return "its queue, which is paused"
        return "a worker" if task.gate == Gate.OPEN else "its turn: a limit is reached"


class FutureAdmin(TaskAdmin):
    """What waits for its time."""

    state = Status.SCHEDULED
    list_display = ("task", "queue_name", "due", "tries", "why")
    ordering = ("run_after", "pk")

    @admin.display(description="due")
    def due(self, task: Task) -> str:
        """Show when it is due."""
        return ago(task.run_after)


class FinishedAdmin(TaskAdmin):
    """What succeeded, and is kept."""

    state = Status.SUCCESSFUL
    list_display = ("task", "queue_name", "age", "took", "tries")
    list_filter = (QueueFilter, TaskFilter, "finished_at")

    @admin.display(description="took")
    def took(self, task: Task) -> str:
        """Show how long the last attempt took."""
        if task.started_at is None or task.finished_at is None:
            return NOTHING
        return duration((task.finished_at - task.started_at).total_seconds())


class CancelledAdmin(TaskAdmin):
    """What was revoked while it ran."""

    state = Status.CANCELLED
    list_filter = (QueueFilter, TaskFilter, "finished_at")


GROUPS: dict[type[Task], type[Any]] = {
    Dashboard: DashboardAdmin,
    FailedTask: FailedAdmin,
    DirtyTask: DirtyAdmin,
    ActiveTask: ActiveAdmin,
    PendingTask: PendingAdmin,
    FutureTask: FutureAdmin,
    FinishedTask: FinishedAdmin,
    CancelledTask: CancelledAdmin,
}


def register(site: admin.AdminSite) -> None:
    """Show all of it in an admin site; the usual one has it already."""
    for model, group in GROUPS.items():
        site.register(model, group)
    site.register(Schedule, ScheduleAdmin)
    if site.index_template is None:  # Django's own, with the warnings and the numbers
        site.index_template = "snappea/index.html"


register(admin.site)
