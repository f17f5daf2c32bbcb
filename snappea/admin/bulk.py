"""Actions on one task or on many: the page to confirm them, and the task that acts in the background."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.contrib import messages
from django.db import DatabaseError, IntegrityError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from ..conf import declared_queues
from ..errors import SnappeaError
from ..models import Task
from ..monitoring.formatting import number, plain
from ..queue.clock import as_datetime, now
from ..queue.operations import paused
from ..tasks import engine
from ..tasks.context import current_task
from ..tasks.function import task
from .actions import VERBS, Verb, note, require, verbs_of
from .columns import arguments, state_label
from .console import ConsoleAdmin
from .search import Search, SearchError, scan

#: Up to this many tasks are changed in the request, so that no Foreman is needed. Each gets an entry in the
#: admin's log.
FEW = 100
#: The same for running tasks: the background task might wait until one of them ends.
FEW_RUNNING = 5_000
#: If there are more than this many, the user must type their number.
TYPED_ABOVE = 1_000
#: Where the page stops counting, and when, in seconds.
MOST_COUNTED, SECONDS = 100_000, 2.0
SAMPLES = 3
A_DAY = 86_400
#: The longest delay of "Requeue with a delay", in seconds: a year.
LONGEST_DELAY = 366 * A_DAY


class Selection(NamedTuple):
    """Tasks that a user chose: by their `ids`, or, if that is None, by the search text `q`.

    Tasks that were enqueued, started or ended after the time `at`, if it is not empty, are not part of it. So
    an action that is repeated, after a double click or a crash, changes no task twice.
    """

    ids: list[int] | None
    q: str = ""
    at: str = ""

    @classmethod
    def of(cls, request: HttpRequest, pk: int | str | None = None) -> "Selection":
        """Return the task `pk`, or what a form chose, as of when its page was made. `all`: not only `ids`."""
        sent, at = request.POST, ""
        sent_ids = [str(pk)] if pk is not None else sent.getlist("ids") if sent.get("all") != "1" else []
        ids = {int(one) for one in sent_ids if one.isdecimal() and len(one) < 19}
        with suppress(ValueError):
            at = str(as_datetime(sent.get("at", "")).replace(tzinfo=None))
        return cls(sorted(ids) if sent_ids else None, sent.get("q", ""), at)

    def tasks(self) -> QuerySet[Task]:
        """Return the tasks, in no order. Raises SearchError."""
        at = as_datetime(self.at) if self.at else None
        found = Search(self.q, at).tasks() if self.ids is None else Task.objects.filter(pk__in=self.ids)
        for column in ("enqueued_at", "started_at", "finished_at") if at else ():
            found = found.exclude(**{f"{column}__gt": at})
        return found.order_by()

    def tasks_for(self, verb: Verb) -> QuerySet[Task]:
        """Return the tasks in the states that an action applies to.

        An action that runs as a task is not requeued: it has the permissions of the user that started it.
        """
        found = self.tasks().filter(status__in=verb.origins)
        return found.exclude(task_name=apply.name) if verb.move == "requeue" else found


@task(
    priority=100, acks_late=True, unique="running", result_ttl=A_DAY, soft_time_limit=A_DAY,
    autoretry_for=(DatabaseError,), default_retry_delay=5,
)  # fmt: skip
def apply(
    verb: str, ids: list[int] | None, q: str, at: str, delay: float | None, user: str
) -> dict[str, Any]:
    """Apply an action to tasks; return how many it changed, and how many it skipped and why.

    `user`: the primary key of the user to name in the admin's log.
    """
    found, chosen, changed = VERBS[verb], Selection(ids, q, at), 0
    states = Counter(dict(chosen.tasks().values_list("status").annotate(Count("pk"))))
    names = dict(chosen.tasks_for(found).values_list("pk", "task_name")[: FEW + 1])
    others = {status: count for status, count in states.items() if status not in found.origins}
    total = states.total() - sum(others.values())
    try:
        for count in found.act(chosen.tasks_for(found), delay):
            changed += count
            if current_task:
                current_task.progress(changed, total)
    finally:  # even if it is terminated
        with suppress(IntegrityError):  # the user was deleted
            _note_changes(found.done(delay), chosen, names, changed, user, found.move == "delete")
    skipped = {
        **others,
        "changed": (states.total() if ids is None else len(ids)) - sum(others.values()) - changed,
    }
    return {"changed": changed, "skipped": +Counter(skipped)}


def verbs_for(row: Task) -> list[Verb]:
    """Return the actions for a task."""
    return [verb for verb in verbs_of(row.status) if verb.move != "requeue" or row.task_name != apply.name]


def _note_changes(
    past: str, chosen: Selection, names: Mapping[int, str], changed: int, user: str, is_deletion: bool
) -> None:
    """Write to the admin's log: an entry for each of a few tasks, or else one for all."""
    if not current_task and len(names) <= FEW:
        for pk, name in names.items() if changed else ():
            note(user, past, f"{name} #{pk}", pk, is_deletion)
    elif changed or current_task:
        by_search = f": {plain(chosen.q)}" if chosen.q and chosen.ids is None else ""
        what = f"{_some(changed)}{by_search}"
        note(user, past, what, current_task.id or None if current_task else None, is_deletion)


def decide(request: HttpRequest, verb: Verb, chosen: Selection, delay: float | None = None) -> None:
    """Apply an action to a few tasks, and show a message. Tasks that it does not apply to are skipped."""
    _tell(request, verb, delay, **apply(verb.name, *chosen, delay, str(request.user.pk)))


def _tell(
    request: HttpRequest, verb: Verb, delay: float | None, changed: int, skipped: Mapping[str, int]
) -> None:
    """Show how many tasks an action changed, and which ones it skipped."""
    said = _("%(past)s: %(name)s.") % {"past": verb.done(delay), "name": _some(changed)}
    gone = _("changed or gone in the meantime")
    reasons = [
        f"{number(count)} {gone if why == 'changed' else state_label(why)}" for why, count in skipped.items()
    ]
    if reasons:
        rest = _("%(number)s skipped: %(reasons)s.")
        said += f" {rest % {'number': number(sum(skipped.values())), 'reasons': ', '.join(reasons)}}"
    messages.add_message(request, messages.WARNING if reasons else messages.SUCCESS, said)


def _some(count: int) -> str:
    """Return "1,234 tasks"."""
    return ngettext("%(number)s task", "%(number)s tasks", count) % {"number": number(count)}


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
            if "list" in request.POST and chosen.ids is None and "all" not in request.POST:
                raise SearchError(_("Select tasks, or all that match."))
            if not is_sure or (delay := _delay(request, found)) is None or not (pk or _is_typed(request)):
                return self._ask(request, found, chosen, pk)
            most = FEW_RUNNING if found.move == "terminate" else FEW
            few = scan(chosen.tasks_for(found), most + 1, SECONDS)
            if not few.is_all:
                return self._start(request, found, chosen, delay)
            decide(request, found, chosen if chosen.ids else chosen._replace(ids=few.ids), delay)
        except (SearchError, SnappeaError) as error:
            messages.error(request, plain(str(error)))
        return self._back(chosen.q, pk)

    def _ask(self, request: HttpRequest, verb: Verb, chosen: Selection, pk: int | None) -> HttpResponse:
        """Show what would be changed, with a form to confirm it."""
        at, fresh = now(), chosen._replace(at="")
        # a search is counted by an index alone, with the tasks of actions that `tasks_for` leaves out
        tasks = fresh.tasks_for(verb) if chosen.ids else fresh.tasks().filter(status__in=verb.origins)
        ids, is_all = scan(tasks, MOST_COUNTED + 1, SECONDS)
        if is_all and not ids:
            decide(request, verb, chosen._replace(ids=chosen.ids or []))  # says why
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
            "skipped": max(0, len(chosen.ids or ()) - count),
            "samples": [(row, arguments(row)) for row in samples],
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
            _tell(request, verb, delay, **started.get())
            return self._back(chosen.q)
        pk = started.id if isinstance(started.id, int) else None  # Celery's task has no page
        note(request.user.pk, _("%(action)s: started") % {"action": verb.label}, plain(chosen.q), pk)
        messages.success(request, _("The action runs in the background."))
        return self._back("" if pk else chosen.q, pk)

    def _back(self, q: str, pk: int | None = None) -> HttpResponseRedirect:
        """Redirect to a task's page, or to the list if it is gone."""
        is_kept = pk is not None and Task.objects.filter(pk=pk).exists()
        page = self.page("snappea_task_change", pk) if is_kept else self.page("snappea_task_changelist")
        return HttpResponseRedirect(f"{page}?{urlencode({'q': q})}" if q else page)


def _delay(request: HttpRequest, verb: Verb) -> float | None:
    """Return the entered delay in seconds; 0 if the action has none. If it is invalid, None and a message."""
    if not verb.takes_delay:
        return 0.0
    delay = math.nan
    with suppress(ValueError):
        delay = float(request.POST.get("delay", ""))
    if 0 <= delay <= LONGEST_DELAY:
        return delay
    messages.error(request, _("Enter a delay in seconds, from 0 to a year."))
    return None


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
