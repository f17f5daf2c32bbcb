"""Actions on tasks: their names, labels and permissions, and the entries in the admin's log."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models import MOVES, Task
from ..monitoring.formatting import duration
from ..monitoring.permissions import Access, may
from ..queue import operations

#: How many entries of the log a page shows.
ENTRIES_SHOWN = 50


class Verb(NamedTuple):
    """An action. `move`: its name in MOVES; `batches`: yields how many tasks each transaction changed."""

    name: str
    label: Any
    past: Any
    move: str
    permission: Access
    batches: Callable[..., Iterator[int]]
    takes_delay: bool = False

    @property
    def origins(self) -> tuple[Any, ...]:
        """The states of the tasks that it applies to."""
        return tuple(MOVES[self.move].origins)

    def act(self, tasks: QuerySet[Task], delay: float | None = None) -> Iterator[int]:
        """Apply it in small transactions, and yield how many tasks each changed."""
        return self.batches(tasks, delay) if self.takes_delay else self.batches(tasks)

    def done(self, delay: float | None = None) -> str:
        """Return what it has done, such as "Requeued with a delay of 5 min"."""
        return str(self.past) % {"delay": duration(delay)}


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


def verbs_of(status: str) -> list[Verb]:
    """Return the actions for tasks in a state."""
    return [verb for verb in VERBS.values() if status in verb.origins]


def require(request: HttpRequest, name: str) -> Verb:
    """Return an action, if it exists and the user may apply it and view tasks. Raises PermissionDenied."""
    if name not in VERBS or not (may(request, "view") and may(request, VERBS[name].permission)):
        raise PermissionDenied
    return VERBS[name]


def note(
    user: Any, past: str, what: str, pk: int | None = None, is_deletion: bool = False, of: type[Model] = Task
) -> None:
    """Write an entry to the admin's log. `user`: the primary key of a user."""
    LogEntry.objects.create(
        user_id=user,
        content_type=ContentType.objects.get_for_model(of),
        object_id=pk,
        object_repr=what[:200],
        action_flag=DELETION if is_deletion else CHANGE,
        change_message=past,
    )


def entries(pk: int, of: type[Model] = Task) -> QuerySet[LogEntry]:
    """Return what the admin's log says about a task, or an object of another model, the newest first."""
    kind = ContentType.objects.get_for_model(of)
    found = LogEntry.objects.filter(content_type=kind, object_id=str(pk))
    return found.select_related("user").order_by("-action_time")[:ENTRIES_SHOWN]
