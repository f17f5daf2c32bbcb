"""The form that edits or adds a schedule: its times, the arguments of its task, and its queue."""

from datetime import datetime
from typing import Any

from django import forms
from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from .. import schedules
from ..errors import SnappeaError, UnknownQueue
from ..models import Schedule, Task
from ..monitoring.formatting import plain
from ..queue.clock import now
from ..queue.database import connect
from ..schedules.plans import Plan, checked
from ..schedules.rows import Planned, upcoming
from ..schedules.triggers import as_option
from ..tasks.function import TaskFunction
from .enqueue import EnqueueForm

#: What is first in the form. The arguments follow.
_FIRST = ["name", "expression", "timezone"]


def _as_stored(field: str, **options: Any) -> Any:
    column: models.Field[Any, Any] = Schedule._meta.get_field(field)  # type: ignore[assignment]  # no relation
    return forms.CharField(max_length=column.max_length, **options)


class ScheduleForm(EnqueueForm):
    """A schedule. `planned`: the one to edit; None: a new one."""

    name = _as_stored("name", label=_("Name"))
    expression = _as_stored(
        "expression",
        label=_("Times"),
        help_text=_('A cron expression as in "0 3 * * *", or as in "every 600 s".'),
    )
    timezone = _as_stored(
        "timezone", label=_("Time zone"), help_text=_('For cron, as in "Europe/Amsterdam".')
    )
    catch_up = forms.BooleanField(
        label=_("Catch up"), required=False, help_text=_("After a downtime, run once for all missed runs.")
    )

    def __init__(self, task: TaskFunction[..., Any], planned: Planned | None, data: Any = None) -> None:
        plan = planned.plan if planned else Plan("", task.name, "", "")
        super().__init__(task, Task(task_name=task.name, args=plan.args, kwargs=plan.kwargs), data)
        self.planned, self.plan = planned, plan
        self.initial = {**plan._asdict(), "timezone": plan.timezone or settings.TIME_ZONE}
        self.hides_arguments = bool(planned and task.options.sensitive)
        names = [name for name in self.fields if name.startswith("args.")]
        unused = [*names * self.hides_arguments, *["name"] * bool(planned), "priority", "countdown"]
        for name in unused:
            del self.fields[name]
        self.order_fields([*_FIRST, *names])

    def clean(self) -> dict[str, Any]:
        """Check the schedule as the code's are checked, and make its plan."""
        given = self.cleaned_data
        if not self.errors:
            try:
                self.plan = self._revised()
            except (SnappeaError, TypeError, ValueError) as error:
                self.add_error(_field_of(error), plain(str(error)))
        return given

    def _revised(self) -> Plan:
        given = self.cleaned_data
        self.options: Any = {
            **as_option(given["expression"]),
            "timezone": given["timezone"],
            "queue": given["queue"] or None,
            "catch_up": given["catch_up"],
        }
        if not self.hides_arguments:
            call = self.call()
            self.options |= {"args": list(call.args), "kwargs": call.kwargs}
        if self.planned:
            return schedules.revised(self.planned, self.options)
        return checked({**self.options, "task": self.task.name, "name": given["name"]}, is_added=True)

    def upcoming(self) -> list[datetime]:
        """Return the next ticks of a valid form."""
        return upcoming(self.plan, self.planned, now(connect()))

    def apply(self) -> bool:
        """Change or add the schedule of a valid form. Return whether that was allowed; the form says why."""
        try:
            if self.planned:
                schedules.change(self.plan.name, **self.options)
            else:
                schedules.add(self.plan.name, self.task, **self.options)
        except (SnappeaError, LookupError, TypeError, ValueError) as error:
            self.add_error(None, plain(str(error)))
        return not self.errors


def _field_of(error: Exception) -> str | None:
    """Return the field that an error belongs to; None: the whole form."""
    if isinstance(error, UnknownQueue):
        return "queue"
    named = {"timezone=": "timezone", "cron=": "expression", "'every": "expression"}
    return next((field for start, field in named.items() if str(error).startswith(start)), None)
