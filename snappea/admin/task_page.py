"""The page of a task, and the form that enqueues a call."""

import json
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext as _

from ..models import Batch, Schedule, ScheduleRun, Task
from ..monitoring.formatting import MOST, duration, named_arguments, one_line, plain, pretty
from ..monitoring.permissions import may
from ..monitoring.task_log import records
from ..monitoring.tracebacks import traceback_parts
from ..monitoring.why import why
from ..queue.dialects import MOST_COUNTED
from ..tasks.discovery import find
from ..tasks.function import TaskFunction, is_sensitive, registry
from .actions import entries, note
from .batches import rows
from .bulk import verbs_for
from .columns import state_label, tags
from .console import LIVE, ConsoleAdmin
from .enqueue import EnqueueForm
from .search import Search, SearchError, neighbours
from .timeline import timeline

#: How many children a page lists.
CHILDREN = 20
#: The most finished steps that a page shows, the latest ones.
MOST_STEPS = 50
#: The delays that "Requeue with a delay" offers, in seconds.
DELAYS = 60, 300, 900, 3600, 6 * 3600, 86_400


class TaskPage(ConsoleAdmin):
    """The page of a task, and the form that enqueues a call of a task function."""

    tab = "tasks"

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of the pages."""
        wrap = self.admin_site.admin_view
        return [
            path("enqueue/", wrap(self.enqueue_view), name="snappea_task_enqueue"),
            path("<path:object_id>/change/", wrap(self.change_view), name="snappea_task_change"),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a task."""
        if not may(request, "view"):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        task = _task(object_id)
        if task is None:
            return self._gone(request, object_id[:19])
        live = self.live(request, "snappea/task_live.html", lambda: self._details(request, task))
        context = {"title": f"{plain(task.task_name)} #{task.pk}", "live": live, **_list(request, task)}
        return self.render(request, "snappea/task_page.html", **context)

    def _gone(self, request: HttpRequest, number: str) -> HttpResponse:
        said = _("Task #%(id)s does not exist: it succeeded or was deleted.") % {"id": number}
        if LIVE in request.headers:  # the page was open when the task succeeded
            live = self.live(request, "snappea/task_gone.html", lambda: {"said": said})
            return self.render(request, "snappea/task_page.html", title=said, live=live)
        messages.warning(request, said)
        return HttpResponseRedirect(self.page("snappea_task_changelist"))

    def _details(self, request: HttpRequest, task: Task) -> dict[str, Any]:
        """Return the template's context."""
        hides = is_sensitive(task, find(task.task_name))
        children = Task.objects.filter(parent_id=task.pk).order_by("pk").only("task_name", "status")
        listed, errors = list(children[: CHILDREN + 1]), task.attempt_errors()
        has_more = len(listed) > CHILDREN
        return {
            "task": task,
            "label": state_label(task.status),
            "lane": plain(task.task_name if hides and task.lane else task.lane or ""),
            "why": why(task),
            "events": timeline(task, entries(task.pk)),
            "hides": hides,
            "arguments": [(plain(name), pretty(text)) for name, text in named_arguments(task)],
            "result": pretty(task.result),
            **({} if hides else _steps(task)),
            "note": plain(task.progress_note[:MOST]),
            "headline": plain(str(errors[-1].get("error", ""))) if errors else one_line(task.error),
            "parts": traceback_parts(task.error),
            "verbs": [verb for verb in verbs_for(task) if may(request, verb.permission)],
            "log_records": records(task),
            "queue_search": Search().with_term("queue", task.queue).text,
            "tags": tags(task),
            "was_requeued": any((error.get("attempt") or 0) > task.attempts for error in errors),
            "delays": [(seconds, duration(seconds)) for seconds in DELAYS],
            "can_enqueue": _function(task.task_name) is not None,
            "parent": task.parent_id and Task.objects.filter(pk=task.parent_id).first(),
            "batches": rows(Batch.objects.filter(pk=task.batch_id)) if task.batch_id else [],
            "schedule": None  # enqueues no members
            if task.batch_id
            else Schedule.objects.filter(
                name__in=ScheduleRun.objects.filter(task_id=task.pk).values("schedule")
            ).first(),
            "children": listed[:CHILDREN],
            "number_of_children": children[: MOST_COUNTED + 1].count() if has_more else len(listed),
        }

    def enqueue_view(self, request: HttpRequest) -> HttpResponse:
        """Show the form, or enqueue the call: of the task `name`, or of that of the row `like`."""
        if not may(request, "change"):
            raise PermissionDenied
        like = _task(request.GET.get("like", ""))
        name = like.task_name if like else request.GET.get("name", "")
        if (task := _function(name)) is None:
            messages.error(request, _("No task function is named %(name)s.") % {"name": plain(name)})
            return HttpResponseRedirect(self.page("snappea_task_changelist"))
        form = EnqueueForm(task, like, request.POST if request.method == "POST" else None)
        if form.is_valid() and (result := form.enqueue()):
            return self._enqueued(request, form.summary(), name, result.id)
        title = _("Enqueue %(name)s") % {"name": plain(name)}
        return self.render(request, "snappea/enqueue.html", title=title, form=form, like=like)

    def _enqueued(self, request: HttpRequest, summary: str, name: str, pk: Any) -> HttpResponse:
        number = pk if isinstance(pk, int) else None  # not with Celery, nor if it has run already
        note(request.user.pk, summary, name if pk is None else f"{name} #{pk}", number)
        messages.success(request, _("Enqueued: %(name)s.") % {"name": f"{plain(name)} #{pk or '—'}"})
        page = "snappea_task_change", number
        return HttpResponseRedirect(self.page(*page) if number else self.page("snappea_task_changelist"))


def _steps(task: Task) -> dict[str, Any]:
    """Return the finished steps and the cursor; nothing if the row was written by hand and is invalid."""
    try:
        kept = dict(json.loads(task.steps or "{}"))
    except (TypeError, ValueError, RecursionError):
        return {}
    cursor = pretty(json.dumps(kept.pop(""))) if "" in kept else None
    steps = [(plain(name), pretty(json.dumps(value))) for name, value in [*kept.items()][-MOST_STEPS:]]
    return {"steps": steps, "steps_left_out": len(kept) - len(steps), "cursor": cursor}


def _list(request: HttpRequest, task: Task) -> dict[str, Any]:
    """Return the search that the page was opened from, and the tasks before and after in its list."""
    if LIVE in request.headers or (q := request.GET.get("q")) is None:
        return {}
    try:
        before, after = neighbours(Search(q), task)
    except SearchError:
        before = after = None
    return {"has_list": True, "q": q, "previous": before, "next": after}


def _function(name: str) -> TaskFunction[..., Any] | None:
    """Return a task function of the project. The arguments of our own name permissions and users."""
    return None if name.startswith("snappea.") else registry.get(name)


def _task(number: str) -> Task | None:
    is_number = number.isdecimal() and len(number) < 19
    return Task.objects.filter(pk=int(number)).first() if is_number else None
