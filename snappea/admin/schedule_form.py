"""The form that edits or adds a schedule: its times, the arguments of its task, and its queue."""

from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from .. import schedules
from ..errors import SnappeaError
from ..models import Task
from ..monitoring.formatting import plain
from ..schedules.plans import Plan
from ..schedules.rows import Planned
from ..schedules.triggers import as_option
from ..tasks.function import TaskFunction
from .enqueue import CallForm


class ScheduleForm(CallForm):
    """A schedule. `planned`: the one to edit; None: a new one."""

    name = forms.CharField(label=_("Name"), max_length=255)
    expression = forms.CharField(
        label=_("Times"),
        max_length=255,
        help_text=_('A cron expression as in "0 3 * * *", or as in "every 600 s".'),
    )
    timezone = forms.CharField(
        label=_("Time zone"), max_length=100, help_text=_('For cron, as in "Europe/Amsterdam".')
    )
    queue = forms.CharField(label=_("Queue"), required=False, max_length=100)
    catch_up = forms.BooleanField(
        label=_("Catch up"), required=False, help_text=_("After a downtime, run once for all missed runs.")
    )
    before_arguments = "name", "expression", "timezone"

    def __init__(self, task: TaskFunction[..., Any], planned: Planned | None, data: Any = None) -> None:
        plan = planned.plan if planned else Plan("", task.name, "", settings.TIME_ZONE)
        call = Task(task_name=task.name, args=plan.args, kwargs=plan.kwargs)
        super().__init__(task, call, data, plan._asdict())
        self.planned = planned
        if planned:
            del self.fields["name"]
        self.hides_arguments = bool(planned and task.options.sensitive)
        for name in self.argument_fields if self.hides_arguments else ():
            del self.fields[name]

    def apply(self) -> bool:
        """Change or add the schedule of a valid form. Return False if it is refused; the form says why."""
        given = self.cleaned_data
        try:
            options: Any = {
                **as_option(given["expression"]),
                "timezone": given["timezone"],
                "queue": given["queue"] or None,
                "catch_up": given["catch_up"],
            }
            if not self.hides_arguments:
                call = self.call()
                options |= {"args": list(call.args), "kwargs": call.kwargs}
            if self.planned:
                schedules.change(self.planned.plan.name, **options)
            else:
                schedules.add(given["name"], self.task, **options)
        except (SnappeaError, LookupError, TypeError, ValueError) as error:
            self.add_error(None, plain(str(error)))
        return not self.errors
