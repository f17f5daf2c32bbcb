"""The admin: a list of tasks for each state, the schedules, and the dashboard."""

from django.contrib import admin

from ..models import LISTS, Dashboard, Schedule
from .columns import LAYOUTS
from .dashboard import DashboardAdmin
from .schedules import ScheduleAdmin
from .tasks import TaskAdmin


def register(site: admin.AdminSite) -> None:
    """Add Snappea to a custom admin site. The default site already has it.

    >>> register(my_site)
    """
    site.register(Dashboard, DashboardAdmin)
    for status, model in LISTS.items():
        site.register(model, TaskAdmin, state=status, **LAYOUTS[status]._asdict())
    site.register(Schedule, ScheduleAdmin)
    if site.index_template is None:  # adds warnings and the number of tasks
        site.index_template = "snappea/index.html"


register(admin.site)
