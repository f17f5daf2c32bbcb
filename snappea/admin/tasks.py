"""The tasks of one state in the admin: the list, a page for each task, and what a person may do to them.

Nobody edits a task: what can be done to one is a verb of its state, and all of that is POST.
"""

import math
from datetime import datetime
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.contrib.admin.models import LogEntry
from django.contrib.admin.views.main import ALL_VAR, PAGE_VAR, ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import BooleanField, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from ..models import Status, Task
from ..monitoring import inspect
from ..monitoring.formatting import MOST, NOTHING, duration, one_line, plain, pretty, traceback_lines
from ..monitoring.permissions import may
from ..queue.clock import as_datetime, as_local
from ..tasks.registry import find, is_sensitive, registry
from .actions import VERBS, Verb, decide, verbs_of
from .dashboard import PAGES
from .filters import QueueFilter, TaskFilter
from .guarded import GuardedAdmin, readable

#: By which columns a list may be narrowed down in its address.
ADDRESSABLE = {"exception", "place", "queue", "task_name"}
HIDDEN = "not shown: the task is sensitive"
#: The longest delay of a requeue, in seconds: a year.
LONGEST_DELAY = 366 * 86_400


class DelayForm(ActionForm):
    """What to do, and for a delay how long."""

    delay = forms.FloatField(required=False, min_value=0, max_value=LONGEST_DELAY, label="Delay, in seconds:")


class TaskAdmin(GuardedAdmin):
    """The tasks of one state."""

    state: ClassVar[Status]
    actions_selection_counter = True
    list_display: Any = ("task", "queue_name", "age", "tries", "why")
    list_filter: ClassVar[Any] = (QueueFilter, TaskFilter, "enqueued_at")
    list_per_page = 50
    list_max_show_all = 200
    ordering: ClassVar[Any] = ("-pk",)
    search_fields = ("task_name", "args", "kwargs", "error")
    search_help_text = "Name, arguments, error text, or the number of a task."
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by = ()
    change_list_template = "snappea/change_list.html"

    # who may

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let those delete who may."""
        return may(request, "delete")

    # which

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        """Return the tasks of the state, by its index; what runs by the Foreman's logbook."""
        tasks = self.all_tasks(request)
        if self.state == Status.RUNNING:
            return tasks.filter(pk__in=inspect.ids_in_flight(), status=Status.RUNNING)
        return tasks.filter(RawSQL(inspect.IN_STATE[self.state], (), output_field=BooleanField()))

    def all_tasks(self, request: HttpRequest) -> QuerySet[Task]:
        """Return the tasks of all states."""
        return super().get_queryset(request).defer("errors", "result")

    def get_paginator(self, request: HttpRequest, *args: Any, **kwargs: Any) -> "Paginator[Task]":
        """Return what counts and cuts the list; all of a state are counted by an index alone."""
        paginator = super().get_paginator(request, *args, **kwargs)
        if not request.GET.keys() - {PAGE_VAR, ALL_VAR}:
            paginator.count = inspect.count(self.state)
        return paginator

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow in the address what the filters offer, and no more: arguments are not to be guessed at."""
        return lookup in ADDRESSABLE or lookup.partition("__")[0] in ("enqueued_at", "finished_at")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Task], search_term: str
    ) -> tuple[QuerySet[Task], bool]:
        """Search; of sensitive tasks only the name."""
        names = [name for name, task in registry.items() if task.options.sensitive]
        is_hidden = Q(is_sensitive=True) | Q(task_name__in=names)
        for word in search_term.split():
            texts = Q(args__icontains=word) | Q(kwargs__icontains=word) | Q(error__icontains=word)
            found = Q(task_name__icontains=word) | (texts & ~is_hidden)
            number = word.removeprefix("#")
            queryset = queryset.filter(found | Q(pk=int(number)) if number.isdecimal() else found)
        return queryset, False

    # columns

    @admin.display(description="task")
    def task(self, task: Task) -> str:
        """Show its name and number."""
        return f"{plain(task.task_name)} #{task.pk}"

    @admin.display(description="queue")
    def queue_name(self, task: Task) -> str:
        """Show its queue."""
        return plain(task.queue)

    @admin.display(description="when")
    def age(self, task: Task) -> str:
        """Show how long ago it ended."""
        return ago(task.finished_at)

    @admin.display(description="attempts")
    def tries(self, task: Task) -> str:
        """Show how often it was started, and interrupted."""
        interrupted = f" ({task.interruptions} interrupted)" if task.interruptions else ""
        return f"{task.attempts}{interrupted}"

    @admin.display(description="error")
    def why(self, task: Task) -> str:
        """Show the last line of its error."""
        return one_line(task.error)

    # what can be done

    def _verbs(self, request: HttpRequest) -> list[Verb]:
        return [verb for verb in verbs_of(self.state) if may(request, verb.permission)]

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Offer what the state allows, and the user may. `action_location`: on which page (Django 6.1)."""
        return {verb.name: (partial(_act, verb=verb), verb.name, verb.label) for verb in self._verbs(request)}

    @property
    def action_form(self) -> type[ActionForm]:
        """Ask for a delay where that means something."""
        return DelayForm if any(verb.takes_delay for verb in verbs_of(self.state)) else ActionForm

    def get_urls(self) -> list[URLPattern]:
        """Return the pages: the list and the tasks; and what is done to them."""
        names = {f"snappea_{self.opts.model_name}_{page}" for page in ("changelist", "change")}
        wrap = self.admin_site.admin_view
        return [
            path("all/<slug:verb>/", wrap(require_POST(self.decide_on_all)), name=f"{self._name}_all"),
            path("<int:pk>/<slug:verb>/", wrap(self.decide_on_one), name=f"{self._name}_decide"),
            *(url for url in super().get_urls() if url.name in names),
        ]

    @property
    def _name(self) -> str:
        return f"snappea_{self.opts.model_name}"

    @readable
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, with a button for all of it."""
        verbs = [verb for verb in self._verbs(request) if verb.name == "requeue"]
        query = urlencode(list(request.GET.lists()), doseq=True)
        return super().changelist_view(
            request, {"all_verbs": verbs, "query": query, "title": self.state.label, **(extra_context or {})}
        )

    def decide_on_all(self, request: HttpRequest, verb: str) -> HttpResponse:
        """Do something to all tasks that the filters in the address let through."""
        found = self._require(request, verb)
        changes: ChangeList = self.get_changelist_instance(request)
        ids = list(changes.get_queryset(request).order_by("pk").values_list("pk", flat=True))
        decide(request, found, ids, _delay(request) if found.takes_delay else None)
        address = reverse(f"{self.admin_site.name}:{self._name}_changelist")
        return HttpResponseRedirect(f"{address}?{request.GET.urlencode()}" if request.GET else address)

    @readable
    def decide_on_one(self, request: HttpRequest, pk: int, verb: str) -> HttpResponse:
        """Do something to one task. Not by GET: that is for the page of the task."""
        if verb == "change":
            return self.change_view(request, str(pk))
        found = require_POST(self._require)(request, verb)
        if isinstance(found, HttpResponse):
            return found
        delay = _delay(request) if found.takes_delay else None
        if found.takes_delay and delay is None:
            messages.error(request, "Say how many seconds it is to wait.")
        else:
            decide(request, found, [pk], delay)
        page = "change" if Task.objects.filter(pk=pk).exists() else "changelist"
        arguments = [pk] if page == "change" else []
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:{self._name}_{page}", args=arguments))

    def _require(self, request: HttpRequest, verb: str) -> Any:
        """Return a verb that the user may use. Raises PermissionDenied."""
        if verb not in VERBS or not may(request, VERBS[verb].permission):
            raise PermissionDenied
        return VERBS[verb]

    @readable
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a task; on the page of the group where it is by now."""
        if not may(request, "view"):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
        found = object_id.isdecimal() and len(object_id) < 19
        task = Task.objects.filter(pk=int(object_id)).first() if found else None
        if task is None:
            messages.warning(request, f"Task #{object_id[:19]} is gone: it succeeded, or was deleted.")
            return HttpResponseRedirect(reverse(f"{self.admin_site.name}:{self._name}_changelist"))
        if task.status != self.state and task.status in PAGES:
            page = f"{self.admin_site.name}:snappea_{PAGES[task.status]}_change"
            return HttpResponseRedirect(reverse(page, args=[task.pk]))
        context = {
            **self.admin_site.each_context(request),
            **_details(task),
            "title": f"{plain(task.task_name)} #{task.pk}",
            "opts": self.opts,
            "media": self.media,
            "verbs": self._verbs(request),
            "pages": f"{self.admin_site.name}:{self._name}",
            "changelist": reverse(f"{self.admin_site.name}:{self._name}_changelist"),
        }
        return TemplateResponse(request, "snappea/task.html", context)


def _act(model_admin: TaskAdmin, request: HttpRequest, queryset: QuerySet[Task], *, verb: Verb) -> None:
    """Do something to what is chosen in a list, also to what has left the list since it was shown."""
    delay = _delay(request) if verb.takes_delay else None
    if verb.takes_delay and delay is None:
        messages.error(request, "Say how many seconds they are to wait.")
        return
    if request.POST.get("select_across") == "1":
        ids = list(queryset.order_by("pk").values_list("pk", flat=True))
    else:
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
        ids = sorted({int(pk) for pk in chosen if pk.isdecimal() and len(pk) < 19})
    decide(request, verb, ids, delay)


def _delay(request: HttpRequest) -> float | None:
    """Return how many seconds the user wants to wait; None if that is not a number of seconds."""
    try:
        delay = float(request.POST.get("delay", ""))
    except ValueError:
        return None
    return delay if math.isfinite(delay) and 0 <= delay <= LONGEST_DELAY else None


def ago(moment: datetime | None) -> str:
    """Show how long ago something was, or in how long it will be, and when exactly."""
    if moment is None:
        return NOTHING
    seconds = (timezone.now() - moment).total_seconds()
    words = f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
    exact = as_local(moment).strftime("%Y-%m-%d %H:%M:%S")
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact, words)


def _at(moment: Any) -> str:
    """Show when an attempt ended, in the time zone of the site; what is no time, as it stands."""
    try:
        at = as_datetime(moment)
    except (TypeError, ValueError):
        return plain(str(moment)) if moment else ""
    exact = as_local(at).strftime("%Y-%m-%d %H:%M:%S")
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), exact)


def _details(task: Task) -> dict[str, Any]:
    """Return what the page of a task shows."""
    hides = is_sensitive(task, find(task.task_name))
    attempts = task.attempt_errors()
    log = LogEntry.objects.filter(content_type__app_label="snappea", object_id=str(task.pk))
    moments = {
        "enqueued": task.enqueued_at,
        "due": task.run_after,
        "started": task.started_at,
        "ended": task.finished_at,
        "expires": task.expires_at,
    }
    return {
        "task": task,
        "label": Status(task.status).label if task.status in Status.values else plain(task.status),
        "name": plain(task.task_name),
        "queue": plain(task.queue),
        "lane": plain(task.task_name if hides and task.lane else task.lane or ""),
        "moments": {name: ago(moment) for name, moment in moments.items() if moment is not None},
        "hides": HIDDEN if hides else "",
        "args": pretty(task.args),
        "kwargs": pretty(task.kwargs),
        "result": pretty(task.result),
        "note": plain(task.progress_note[:MOST]),
        "lines": traceback_lines(task.error),
        "attempts": [
            {key: plain(str(value)) for key, value in attempt.items() if value is not None}
            | {"at": _at(attempt.get("at"))}
            for attempt in attempts
        ],
        "was_requeued": any(
            isinstance(number := attempt.get("attempt"), int) and number > task.attempts
            for attempt in attempts
        ),
        "log": log.select_related("user").order_by("-action_time")[:50],
    }
