"""The admin: the pages of the console, and the lists of the states, which lead to them."""

from django.contrib import admin
from django.urls import URLPattern

from ..models import LISTS, Dashboard, Schedule, Task
from .batches import BatchPages
from .bulk import BulkAdmin
from .dashboard import DashboardAdmin
from .schedules import ScheduleAdmin
from .task_page import TaskPage
from .tasks import StateAdmin, TaskList


class TaskAdmin(TaskList, TaskPage, BatchPages, BulkAdmin):
    """The list of tasks, a task's page, the batches, and the actions on tasks."""

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of all of them."""
        return [url for pages in (TaskList, TaskPage, BatchPages, BulkAdmin) for url in pages.get_urls(self)]


def register(site: admin.AdminSite) -> None:
    """Add Snappea to a custom admin site. The default site already has it.

    >>> register(my_site)
    """
    site.register(Dashboard, DashboardAdmin)
    for status, model in LISTS.items():
        site.register(model, StateAdmin, state=status)
    site.register(Task, TaskAdmin)
    site.register(Schedule, ScheduleAdmin)
    if site.index_template is None:  # adds warnings and the number of tasks
        site.index_template = "snappea/index.html"


register(admin.site)
