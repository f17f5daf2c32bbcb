"""Actions on one task or on many: the page to confirm them, and the task that acts in the background."""

import re
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.contrib import messages
from django.db import DatabaseError, IntegrityError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from ..conf import declared_queues
from ..errors import SnappeaError
from ..models import MOVES, Task
from ..monitoring.formatting import duration, named_arguments, plain
from ..queue.clock import as_datetime, now
from ..queue.operations import paused
from ..tasks import engine
from ..tasks.context import current_task
from ..tasks.function import task
from .actions import VERBS, Verb, decide, delay_of, left_alone, note, outcome, require, some, write_entry
from .console import ConsoleAdmin
from .search import Search, SearchError, scan

#: Up to this many tasks are changed in the request, so that no Foreman is needed.
FEW = 100
#: The same for running tasks: the background task might wait until one of them ends.
FEW_RUNNING = 5_000
#: If there are more than this many, the user must type their number.
TYPED_ABOVE = 1_000
#: Where the page stops counting, and when, in seconds.
MOST_COUNTED, SECONDS = 100_000, 2.0
SAMPLES = 3
A_DAY = 86_400


class Selection(NamedTuple):
    """Tasks that a user chose, by their `ids`, or else by the search text `q`.

    Tasks that were enqueued, started or ended after the time `at`, if it is not empty, are not part of it. So
    an action that is repeated, after a double click or a crash, changes no task twice.
    """

    ids: list[int]
    q: str
    at: str

    @classmethod
    def of(cls, request: HttpRequest, pk: int | None = None) -> "Selection":
        """Return the task `pk`, or what a form chose, as of when its page was made. `all`: not only `ids`."""
        sent, at = request.POST, ""
        numbers = [str(pk)] if pk is not None else sent.getlist("ids") if sent.get("all") != "1" else []
        # an invalid number is that of no task: without numbers it would be the search
        ids = {int(number) if number.isdecimal() and len(number) < 19 else 0 for number in numbers}
        with suppress(ValueError):
            at = str(as_datetime(sent.get("at", "")).replace(tzinfo=None))
        return cls(sorted(ids), sent.get("q", ""), at)

    def tasks(self) -> QuerySet[Task]:
        """Return the tasks, in no order. Raises SearchError."""
        at = as_datetime(self.at) if self.at else None
        found = Task.objects.filter(pk__in=self.ids) if self.ids else Search(self.q, at).tasks()
        for column in ("enqueued_at", "started_at", "finished_at") if at else ():
            found = found.exclude(**{f"{column}__gt": at})
        return found.order_by()

    def tasks_for(self, verb: Verb) -> QuerySet[Task]:
        """Return the tasks in the states that an action applies to."""
        return self.tasks().filter(status__in=MOVES[verb.move].origins)

    def described(self, count: int) -> str:
        """Return what the admin's log says."""
        return f"{some(count)}: {plain(self.q)}" if self.q and not self.ids else some(count)


@task(
    priority=100, acks_late=True, unique="running", result_ttl=A_DAY, soft_time_limit=A_DAY,
    autoretry_for=(DatabaseError,), default_retry_delay=5,
)  # fmt: skip
def apply(verb: str, ids: list[int], q: str, at: str, delay: float | None, user: str) -> dict[str, Any]:
    """Apply an action to many tasks; return how many it changed, and how many it skipped and why.

    `user`: the primary key of the user to name in the admin's log.
    """
    found, chosen, changed = VERBS[verb], Selection(ids, q, at), 0
    states = dict(chosen.tasks().values_list("status").annotate(Count("pk")))
    total = sum(states.get(origin, 0) for origin in MOVES[found.move].origins)
    try:
        for count in found.act(chosen.tasks_for(found), delay):
            changed += count
            current_task.progress(changed, total)
    finally:  # even if it is terminated
        past, is_deletion = str(found.past) % {"delay": duration(delay)}, found.move == "delete"
        with suppress(IntegrityError):  # the user was deleted
            write_entry(user, past, chosen.described(changed), current_task.id or None, is_deletion)
    return {"changed": changed, "skipped": left_alone(found, states, changed)}


class BulkAdmin(ConsoleAdmin):
    """The URLs of the actions on tasks."""

    tab = "tasks"

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs, which only accept POST."""
        act = self.admin_site.admin_view(require_POST(self.act))
        return [
            path("bulk/<slug:verb>/", act, name="snappea_task_bulk"),
            path("<int:pk>/<slug:verb>/", act, name="snappea_task_act"),
        ]

    def act(self, request: HttpRequest, verb: str, pk: int | None = None) -> HttpResponse:
        """Apply an action to a task, or, once the user has confirmed it, to many. Deleting asks always."""
        found, chosen = require(request, verb), Selection.of(request, pk)
        is_sure = request.POST.get("confirmed") == "1" or not (pk is None or found.move == "delete")
        try:
            if "list" in request.POST and not chosen.ids and "all" not in request.POST:
                raise SearchError(_("Select tasks, or all that match."))
            if not is_sure or (delay := _delay(request, found)) is None or not (pk or _is_typed(request)):
                return self._ask(request, found, chosen, pk)
            most = FEW_RUNNING if found.move == "terminate" else FEW
            few = scan(chosen.tasks_for(found), most + 1, SECONDS)
            if not few.is_all:
                return self._start(request, found, chosen, delay)
            decide(request, found, chosen.ids or few.ids, delay)
        except (SearchError, SnappeaError) as error:
            messages.error(request, plain(str(error)))
        return self._back(chosen.q, pk)

    def _ask(self, request: HttpRequest, verb: Verb, chosen: Selection, pk: int | None) -> HttpResponse:
        """Show what would be changed, with a form to confirm it."""
        at, tasks = now(), chosen._replace(at="").tasks_for(verb)
        ids, is_all = scan(tasks, MOST_COUNTED + 1, SECONDS)
        if is_all and not ids:
            decide(request, verb, chosen.ids)  # says why
            return self._back(chosen.q, pk)
        count = min(len(ids), MOST_COUNTED)
        samples = Task.objects.filter(pk__in=ids[:SAMPLES])
        in_background = verb.move != "terminate" and (count > FEW or not is_all)
        context: dict[str, Any] = {
            "verb": verb,
            "chosen": chosen,
            "at": at,
            "count": count,
            "is_more": not is_all,
            "skipped": max(0, len(chosen.ids) - count),
            "samples": [(row, named_arguments(row)) for row in samples],
            "is_typed": count > TYPED_ABOVE or not is_all,
            "waits": in_background and engine.choose().trouble(),
            "delay": request.POST.get("delay", "60"),
            "back": self._back(chosen.q, pk).url,
            "q": chosen.q,
        }
        return self.render(request, "snappea/confirm.html", title=verb.label, **context)

    def _start(self, request: HttpRequest, verb: Verb, chosen: Selection, delay: float) -> HttpResponse:
        """Enqueue the task that acts in the background, and redirect to its page."""
        chosen = chosen._replace(at=chosen.at or now())
        started = apply.apply_async((verb.name, *chosen, delay, str(request.user.pk)), queue=_queue())
        if started.id is None:  # TASK_ALWAYS_EAGER
            messages.success(request, outcome(verb, **started.get(), delay=delay))
            return self._back(chosen.q)
        pk = started.id if isinstance(started.id, int) else None  # Celery's task has no page
        note(request, _("%(action)s: started") % {"action": verb.label}, plain(chosen.q), pk)
        messages.success(request, _("The action runs in the background."))
        return self._back("" if pk else chosen.q, pk)

    def _back(self, q: str, pk: int | None = None) -> HttpResponseRedirect:
        """Redirect to a task's page, or to the list if it is gone."""
        is_kept = pk is not None and Task.objects.filter(pk=pk).exists()
        page = self.page("snappea_task_change", pk) if is_kept else self.page("snappea_task_changelist")
        return HttpResponseRedirect(f"{page}?{urlencode({'q': q})}" if q else page)


def _delay(request: HttpRequest, verb: Verb) -> float | None:
    """Return the entered delay, 0 if the action has none; None, with a message, if it is invalid."""
    delay = delay_of(request) if verb.takes_delay else 0.0
    if delay is None:
        messages.error(request, _("Enter a delay in seconds, from 0 to a year."))
    return delay


def _is_typed(request: HttpRequest) -> bool:
    """Return whether the user typed the number of tasks, if it is large. If not, show a message."""
    shown, typed = (re.sub(r"\D", "", request.POST.get(name, ""))[:18] for name in ("shown", "typed"))
    is_small = "more" not in request.POST and shown and int(shown) <= TYPED_ABOVE
    if is_small or (shown and typed and int(shown) == int(typed)):
        return True
    messages.error(request, _("Type the number of tasks to confirm."))
    return False


def _queue() -> str:
    """Return a queue for the task in the background: if possible, one that is not paused."""
    stopped, names = paused(), declared_queues() or ("default", "snappea")
    return next((name for name in names if name not in stopped), "default")
