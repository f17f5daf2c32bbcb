"""Actions on tasks: their labels and permissions, their messages, and their entries in the admin's log."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext, ngettext, ngettext_lazy
from django.utils.translation import gettext_lazy as _

from ..models import MOVES, Task
from ..monitoring.formatting import duration, number
from ..monitoring.permissions import Access, may
from ..queue import operations
from ..queue.clock import as_text, seconds_until
from .columns import state_label

#: Up to this many tasks get separate entries in the admin's log. More tasks share one entry.
ENTRIES = 100
#: How many entries of the log a page shows.
ENTRIES_SHOWN = 50
#: The longest delay of "Requeue with a delay", in seconds: a year.
LONGEST_DELAY = 366 * 86_400
#: Why tasks were skipped that are in a state that the action applies to, or in none.
_REASONS = {"changed": _("changed in the meantime"), "gone": _("gone")}


class Verb(NamedTuple):
    """An action. `move`: its name in MOVES; `batches`: yields how many tasks each transaction changed.

    `past`: what the admin's log says; it may contain %(delay)s.
    """

    name: str
    label: Any
    past: Any
    move: str
    permission: Access
    batches: Callable[..., Iterator[int]]
    takes_delay: bool = False

    def act(self, tasks: QuerySet[Task], delay: float | None = None) -> Iterator[int]:
        """Apply it in small transactions, and yield how many tasks each changed."""
        return self.batches(tasks, delay) if self.takes_delay else self.batches(tasks)


_REQUEUE, _TERMINATE = operations.requeue_in_batches, operations.terminate_in_batches
_POSTPONED = _("Requeued with a delay of %(delay)s")
VERBS = {
    verb.name: verb
    for verb in (
        Verb("requeue", _("Requeue"), _("Requeued"), "requeue", "change", _REQUEUE),
        Verb("postpone", _("Requeue with a delay"), _POSTPONED, "requeue", "change", _REQUEUE, True),
        Verb("cancel", _("Cancel"), _("Cancelled"), "cancel", "change", operations.cancel_in_batches),
        Verb("terminate", _("Terminate"), _("Asked to end"), "terminate", "change", _TERMINATE),
        Verb("delete", _("Delete"), _("Deleted"), "delete", "delete", operations.delete_in_batches),
    )
}
#: What an action did, by its name.
_DONE = {
    "requeue": ngettext_lazy("%(number)s task was requeued.", "%(number)s tasks were requeued.", "count"),
    "postpone": ngettext_lazy(
        "%(number)s task was requeued with a delay of %(delay)s.",
        "%(number)s tasks were requeued with a delay of %(delay)s.",
        "count",
    ),
    "cancel": ngettext_lazy("%(number)s task was cancelled.", "%(number)s tasks were cancelled.", "count"),
    "terminate": ngettext_lazy(
        "%(number)s task was asked to end.", "%(number)s tasks were asked to end.", "count"
    ),
    "delete": ngettext_lazy("%(number)s task was deleted.", "%(number)s tasks were deleted.", "count"),
}


def verbs_of(status: str) -> list[Verb]:
    """Return the actions for tasks in a state."""
    return [verb for verb in VERBS.values() if status in MOVES[verb.move].origins]


def require(request: HttpRequest, name: str) -> Verb:
    """Return an action, if it exists and the user may apply it and view tasks. Raises PermissionDenied."""
    if name not in VERBS or not (may(request, "view") and may(request, VERBS[name].permission)):
        raise PermissionDenied
    return VERBS[name]


def delay_of(request: HttpRequest) -> float | None:
    """Return the entered delay in seconds, or the seconds until the time `due`; None if it is invalid."""
    try:
        if due := parse_datetime(request.POST.get("due", "")):
            delay = seconds_until(as_text(timezone.make_aware(due) if settings.USE_TZ else due))
        else:
            delay = float(request.POST.get("delay", ""))
    except ValueError:
        return None
    return delay if math.isfinite(delay) and 0 <= delay <= LONGEST_DELAY else None


def decide(request: HttpRequest, verb: Verb, ids: Sequence[int], delay: float | None = None) -> None:
    """Apply an action to a few tasks, show a message, and write the admin's log.

    Tasks that have changed their state are skipped and reported.
    """
    found = Task.objects.filter(pk__in=ids).values_list("pk", "task_name", "status")
    states = {pk: status for pk, _name, status in found}
    names = {pk: name for pk, name, status in found if status in MOVES[verb.move].origins}
    changed = 0
    try:
        for count in verb.act(Task.objects.filter(pk__in=list(names)), delay):
            changed += count
    except DatabaseError as error:
        said = gettext("Database error: %(error)s. Some tasks may have been changed. Try again.")
        messages.error(request, said % {"error": error})
    skipped = left_alone(verb, Counter(states.values()), changed) + Counter(gone=len(ids) - len(states))
    level = messages.WARNING if skipped else messages.SUCCESS
    messages.add_message(request, level, outcome(verb, changed, skipped, delay))
    past = str(verb.past) % {"delay": duration(delay)}
    if changed and len(names) <= ENTRIES:
        for pk, name in names.items():
            note(request, past, f"{name} #{pk}", pk, is_deletion=verb.move == "delete")
    elif changed:
        note(request, past, some(changed))


def left_alone(verb: Verb, states: Mapping[str, int], changed: int) -> Counter[str]:
    """Count the tasks that an action skipped, by state or reason. `states`: how many were in each before."""
    origins = MOVES[verb.move].origins
    applies = sum(count for status, count in states.items() if status in origins)
    others = {status: count for status, count in states.items() if status not in origins}
    return +Counter({**others, "changed": applies - changed})


def outcome(verb: Verb, changed: int, skipped: Mapping[str, int], delay: float | None = None) -> str:
    """Return a sentence that says how many tasks an action changed, and which ones it skipped."""
    said = str(_DONE[verb.name] % {"count": changed, "number": number(changed), "delay": duration(delay)})
    if not skipped:
        return said
    reasons = [f"{number(count)} {_REASONS.get(why) or state_label(why)}" for why, count in skipped.items()]
    rest = gettext("%(number)s skipped: %(reasons)s.")
    return f"{said} {rest % {'number': number(sum(skipped.values())), 'reasons': ', '.join(reasons)}}"


def some(count: int) -> str:
    """Return "1,234 tasks"."""
    return ngettext("%(number)s task", "%(number)s tasks", count) % {"number": number(count)}


def note(
    request: HttpRequest,
    past: str,
    what: str,
    pk: int | None = None,
    is_deletion: bool = False,
    of: type[Model] = Task,
) -> None:
    """Write an entry to the admin's log."""
    write_entry(request.user.pk, past, what, pk, is_deletion, of)


def entries(pk: int, of: type[Model] = Task) -> QuerySet[LogEntry]:
    """Return what the admin's log says about a task, or an object of another model, the newest first."""
    kind = ContentType.objects.get_for_model(of)
    found = LogEntry.objects.filter(content_type=kind, object_id=str(pk))
    return found.select_related("user").order_by("-action_time")[:ENTRIES_SHOWN]


def write_entry(
    user: Any, past: str, what: str, pk: int | None = None, is_deletion: bool = False, of: type[Model] = Task
) -> None:
    """Write an entry to the admin's log. `user`: the primary key of a user."""
    LogEntry.objects.create(
        user_id=user,
        content_type=ContentType.objects.get_for_model(of),
        object_id=pk,
        object_repr=what[:200],
        action_flag=DELETION if is_deletion else CHANGE,
        change_message=past[:1].upper() + past[1:],
    )
