"""The list of tasks in a state, and the actions on them. Tasks are never edited."""

from functools import partial
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.contrib.admin.views.main import ALL_VAR, PAGE_VAR
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST

from ..models import LISTS, Pause, Status, Task
from ..monitoring import inspect
from ..monitoring.permissions import may
from ..tasks.function import registry
from .actions import LONGEST_DELAY, Verb, decide, delay_of, require, verbs_of
from .guarded import GuardedAdmin
from .task_page import details

#: The columns that the URL may filter by. Others could be used to guess arguments.
ADDRESSABLE = {"exception", "place", "queue", "task_name", "enqueued_at", "finished_at"}


class DelayForm(ActionForm):
    """The action form, with a delay."""

    delay = forms.FloatField(required=False, min_value=0, max_value=LONGEST_DELAY, label="Delay, in seconds:")


class TaskAdmin(GuardedAdmin):
    """The list of tasks in a state. `register()` adds one for each state, with its columns and filters."""

    state: Status
    actions_selection_counter = True
    list_per_page = 50
    list_max_show_all = 200
    search_fields = ("task_name", "args", "kwargs", "error")
    search_help_text = "Search by name, arguments, error text, or number."
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    change_list_template = "snappea/change_list.html"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request, "delete")

    # rows

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        """Return the tasks of the state, by an index; running tasks by the logbook."""
        tasks: QuerySet[Task] = super().get_queryset(request).defer("errors", "result")
        if self.state == Status.READY:
            tasks = tasks.annotate(is_paused=Exists(Pause.objects.filter(queue=OuterRef("queue"))))
        if self.state == Status.FAILED and (chosen := request.GET.get("exception")) is not None:
            return inspect.raised(tasks, chosen)
        return inspect.in_state(tasks, self.state)

    def get_paginator(self, request: HttpRequest, *args: Any, **kwargs: Any) -> "Paginator[Task]":
        paginator = super().get_paginator(request, *args, **kwargs)
        if not request.GET.keys() - {PAGE_VAR, ALL_VAR}:
            paginator.count = inspect.count(self.state)  # by an index alone
        return paginator

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        name, _, how = lookup.partition("__")
        return name in ADDRESSABLE and (not how or name.endswith("_at"))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Task], search_term: str
    ) -> tuple[QuerySet[Task], bool]:
        """Search by words. Sensitive tasks are found only by name and number."""
        names = [name for name, task in registry.items() if task.options.sensitive]
        is_hidden = Q(is_sensitive=True) | Q(task_name__in=names)
        for word in search_term.split():
            texts = Q(args__icontains=word) | Q(kwargs__icontains=word) | Q(error__icontains=word)
            found = Q(task_name__icontains=word) | (texts & ~is_hidden)
            number = word.removeprefix("#")
            queryset = queryset.filter(found | Q(pk=int(number)) if number.isdecimal() else found)
        return queryset, False

    # actions

    def verbs(self, request: HttpRequest) -> list[Verb]:
        """Return the actions that the state allows and that the user may apply."""
        return [verb for verb in verbs_of(self.state) if may(request, verb.permission)]

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        # Django 6.1 passes action_location
        return {verb.name: (partial(_act, verb=verb), verb.name, verb.label) for verb in self.verbs(request)}

    @property
    def action_form(self) -> type[ActionForm]:
        return DelayForm if any(verb.takes_delay for verb in verbs_of(self.state)) else ActionForm

    def apply_to_all(self, request: HttpRequest, verb: str) -> HttpResponse:
        """Apply an action to all tasks that match the filters in the URL."""
        found = require(request, verb)
        matching = self.get_changelist_instance(request).get_queryset(request)
        _apply(request, found, _ids(matching))
        query = request.GET.urlencode()
        return HttpResponseRedirect(self.address("changelist") + (f"?{query}" if query else ""))

    def apply_to_one(self, request: HttpRequest, pk: int, verb: str) -> HttpResponse:
        """Apply an action to a task."""
        _apply(request, require(request, verb), [pk])
        is_kept = Task.objects.filter(pk=pk).exists()
        return HttpResponseRedirect(self.address("change", pk) if is_kept else self.address("changelist"))

    # pages

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of the list, of a task, and of the actions."""
        names = {f"snappea_{self.opts.model_name}_{page}" for page in ("changelist", "change")}
        wrap = self.admin_site.admin_view
        return [
            *(url for url in super().get_urls() if url.name in names),
            path("all/<slug:verb>/", wrap(require_POST(self.apply_to_all))),
            path("<int:pk>/<slug:verb>/", wrap(require_POST(self.apply_to_one))),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, with a button that requeues all of it."""
        context = {
            "all_verbs": [verb for verb in self.verbs(request) if verb.name == "requeue"],
            "query": urlencode(list(request.GET.lists()), doseq=True),
            "title": self.state.label,
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a task. If its state has changed, redirect to its page in the list of that state."""
        if not may(request, "view"):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        is_number = object_id.isdecimal() and len(object_id) < 19
        task = Task.objects.filter(pk=int(object_id)).first() if is_number else None
        if task is None:
            messages.warning(request, f"Task #{object_id[:19]} does not exist: it succeeded or was deleted.")
            return HttpResponseRedirect(self.address("changelist"))
        if task.status != self.state and task.status in Status.values:
            return HttpResponseRedirect(self.address("change", task.pk, of=LISTS[Status(task.status)]))
        context = {
            **self.admin_site.each_context(request),
            **details(task),
            "opts": self.opts,
            "media": self.media,
            "verbs": self.verbs(request),
            "changelist": self.address("changelist"),
            "parent": task.parent_id and self.address("change", task.parent_id),
        }
        return TemplateResponse(request, "snappea/task.html", context)


def _ids(tasks: QuerySet[Task]) -> list[int]:
    return list(tasks.order_by("pk").values_list("pk", flat=True))


def _act(model_admin: TaskAdmin, request: HttpRequest, queryset: QuerySet[Task], *, verb: Verb) -> None:
    """Apply an action to the selected tasks. Some may have left the list."""
    if request.POST.get("select_across") == "1":
        ids = _ids(queryset)
    else:
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
        ids = sorted({int(pk) for pk in chosen if pk.isdecimal() and len(pk) < 19})
    _apply(request, verb, ids)


def _apply(request: HttpRequest, verb: Verb, ids: list[int]) -> None:
    delay = delay_of(request) if verb.takes_delay else None
    if verb.takes_delay and delay is None:
        messages.error(request, "Enter a delay in seconds, from 0 to a year.")
    else:
        decide(request, verb, ids, delay)
