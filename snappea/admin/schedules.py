"""The schedules in the console: their times, their last runs, and the actions on them."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import schedules
from ..errors import ConfigurationError, SnappeaError
from ..models import Schedule, ScheduleRun, Status, Task
from ..monitoring.formatting import duration, plain, when
from ..monitoring.permissions import Access, may
from ..schedules.plans import Plan
from ..schedules.triggers import Cron
from ..tasks.discovery import discover, find
from ..tasks.function import declared
from .actions import entries, note
from .columns import ago, arguments, state_label
from .console import ConsoleAdmin
from .schedule_form import ScheduleForm
from .search import Search

#: The actions on a schedule, and what the admin's log says.
VERBS = {
    "pause": (schedules.pause, gettext_lazy("Paused")),
    "resume": (schedules.resume, gettext_lazy("Resumed")),
    "fire": (schedules.fire, gettext_lazy("Fired")),
    "reset": (schedules.reset, gettext_lazy("Reset")),
    "remove": (schedules.remove, gettext_lazy("Removed")),
}
#: The outcomes of runs that have no task, or no row of it.
_GONE = {
    "expired": gettext_lazy("expired"),
    "deleted": gettext_lazy("deleted"),
    "handed over": gettext_lazy("handed over to Celery"),
    "discarded": gettext_lazy("discarded"),
    "skipped": gettext_lazy("skipped, because it was too late"),
}


def facts(plan: Plan) -> dict[str, str]:
    """Return what a user may change, by its label. Arguments are left out if they must not be shown."""
    call = Task(task_name=plan.task_name, args=plan.args, kwargs=plan.kwargs)
    return {
        _("Times"): plain(plan.expression),
        _("Time zone"): plain(plan.timezone),
        _("Arguments"): arguments(call) if find(plan.task_name) else _("hidden"),
        _("Queue"): plain(plan.queue or _("the task's own")),
        _("Catch up"): _("yes") if plan.catch_up else _("no"),
    }


def difference(before: Plan | None, after: Plan | None) -> str:
    """Return the old and the new values of what differs, for the admin's log; all values if one is None."""
    old, new = (facts(plan) if plan else {} for plan in (before, after))
    if not old or not new:
        return ", ".join(f"{label}: {value}" for label, value in (old or new).items())
    return ", ".join(
        f"{label}: {old[label]} → {value}" for label, value in new.items() if old[label] != value
    )


class ScheduleAdmin(ConsoleAdmin):
    """The list of schedules, a page for each, and the form that adds one."""

    tab = "schedules"

    def get_urls(self) -> list[URLPattern]:
        pages: dict[str, tuple[Callable[..., HttpResponse], str]] = {
            "": (self.changelist_view, "changelist"),
            "add/": (self.add, "add"),
            "<int:pk>/change/": (self.edit, "change"),
            "<int:pk>/<str:verb>/": (self.act, "act"),
        }
        wrap = self.admin_site.admin_view
        return [path(at, wrap(view), name=f"snappea_schedule_{name}") for at, (view, name) in pages.items()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        _require(request, "view")
        live = self.live(request, "snappea/schedules_live.html", self._list)
        return self.render(request, "snappea/schedules.html", title=_("Schedules"), live=live)

    def edit(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show a schedule, and the form that changes it."""
        _require(request, "change" if request.method == "POST" else "view")
        listed = _find(pk)
        planned = listed.planned
        task = find(planned.plan.task_name)
        form = ScheduleForm(task, planned, request.POST or None) if task and may(request, "change") else None
        if form and form.is_valid() and form.apply():
            _tell(request, _("Changed"), pk, planned.plan, _find(pk).planned.plan)
            return HttpResponseRedirect(request.path)
        was = facts(planned.declaration()) if planned.declared else {}
        return self.render(
            request,
            "snappea/schedule.html",
            title=plain(planned.plan.name),
            schedule=self._described(listed, schedules.runs()),
            facts=[(label, value, was.get(label, value)) for label, value in facts(planned.plan).items()],
            form=form,
            log=entries(pk, Schedule),
        )

    def add(self, request: HttpRequest) -> HttpResponse:
        """Show the form that adds a schedule."""
        _require(request, "change")
        discover()
        tasks = {task.name: task for task in declared() if task.options.schedulable}
        task = tasks.get(request.GET.get("task", ""))
        form = ScheduleForm(task, None, request.POST or None) if task else None
        if form and form.is_valid() and form.apply():
            row = Schedule.objects.get(name=form.cleaned_data["name"])
            _tell(request, _("Added"), row.pk, None, _find(row.pk).planned.plan)
            return HttpResponseRedirect(self.page("snappea_schedule_change", row.pk))
        return self.render(
            request, "snappea/schedule_add.html", title=_("Add a schedule"), tasks=sorted(tasks), form=form
        )

    def _list(self) -> dict[str, Any]:
        runs = schedules.runs()
        return {"schedules": [self._described(listed, runs) for listed in schedules.listing()]}

    def _described(self, listed: schedules.Listed, runs: dict[str, list[tuple[ScheduleRun, str]]]) -> Any:
        """Return a schedule as the templates show it."""
        plan = listed.planned.plan
        search = urlencode({"q": Search("").with_term("task", plan.task_name).text})
        alike = f"{self.page('snappea_task_changelist')}?{search}"
        return {
            "plan": plan,
            "row": listed.row,
            "words": _words(plan),
            "is_cron": not plan.expression.startswith("every"),
            "is_added": listed.planned.is_added,
            "is_changed": bool(listed.planned.declared),
            "problem": plain(listed.problem),
            "next": [(ago(run), when(run)) for run in listed.runs],
            "task_page": f"{self.page('snappea_task_type')}?{urlencode({'name': plan.task_name})}",
            "alike": alike,
            "bars": [self._bar(run, outcome, alike) for run, outcome in runs.get(plan.name, [])],
        }

    def _bar(self, run: ScheduleRun, outcome: str, alike: str) -> dict[str, Any]:
        """Return a run. `href`: the page of its task, or the list of such tasks if it has no row."""
        is_state = outcome in Status.values
        kind = outcome if is_state else "gone" if outcome in _GONE else "failed"
        label = state_label(outcome) if is_state else str(_GONE.get(outcome) or plain(outcome[:500]))
        task_id = run.task_id if getattr(run, "status", None) else None
        page = self.page("snappea_task_change", task_id) if task_id else alike
        return {"kind": kind, "at": run.at, "label": label, "task_id": task_id, "href": page}

    def act(self, request: HttpRequest, pk: int, verb: str) -> HttpResponse:
        """Apply an action to a schedule."""
        _require(request, "change")
        if request.method != "POST" or verb not in VERBS:
            raise Http404
        plan, (apply, past) = _find(pk).planned.plan, VERBS[verb]
        try:
            apply(plan.name)
        except (SnappeaError, LookupError, TypeError, ValueError) as error:  # the errors of `delay()`
            why = plain(schedules.reason(plan.task_name, error))
            messages.error(request, _("%(name)s: %(why)s") % {"name": plain(plan.name), "why": why})
        else:
            _tell(request, str(past), pk, plan, None if verb == "remove" else _find(pk).planned.plan)
        is_there = "page" in request.POST and verb != "remove"
        page = ("snappea_schedule_change", pk) if is_there else ("snappea_schedule_changelist",)
        return HttpResponseRedirect(self.page(*page))


def _tell(request: HttpRequest, past: str, pk: int, before: Plan | None, after: Plan | None) -> None:
    """Show what a user has done to a schedule, and write it to the admin's log."""
    plan: Any = after or before
    messages.success(request, _("%(past)s: %(name)s.") % {"past": past, "name": plain(plan.name)})
    what = ": ".join(filter(None, (past, difference(before, after))))
    note(request.user.pk, what, plan.name, pk, after is None, Schedule)


def _require(request: HttpRequest, access: Access) -> None:
    if not may(request, access):
        raise PermissionDenied


def _words(plan: Plan) -> str:
    """Return the times in words; those of cron in English."""
    try:
        trigger = plan.trigger()
    except ConfigurationError:  # the page shows the problem
        return ""
    if isinstance(trigger, Cron):
        return trigger.words()
    return _("Every %(span)s") % {"span": duration(trigger.interval.total_seconds(), units=4)}


def _find(pk: int) -> schedules.Listed:
    for listed in schedules.listing():
        if listed.row and listed.row.pk == pk:
            return listed
    raise Http404
