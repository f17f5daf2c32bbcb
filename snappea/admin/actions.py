"""Actions on tasks: their labels and permissions, their messages, and their entries in the admin's log."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError
from django.db.models import Model
from django.http import HttpRequest

from ..models import MOVES, Task
from ..monitoring.formatting import duration
from ..monitoring.permissions import Access
from ..queue import operations
from .columns import state_label

#: How many tasks one query looks up.
AT_ONCE = 5000
#: Up to this many tasks get separate entries in the admin's log. More tasks share one entry.
ENTRIES = 100


class Verb(NamedTuple):
    """An action. `past` completes "3 tasks were"; `move` is its name in MOVES."""

    name: str
    label: str
    past: str
    move: str
    permission: Access
    act: Callable[..., int]
    takes_delay: bool = False


VERBS = {
    verb.name: verb
    for verb in (
        Verb("requeue", "Requeue", "requeued", "requeue", "change", operations.requeue),
        Verb("postpone", "Requeue with a delay", "requeued", "requeue", "change", operations.requeue, True),
        Verb("cancel", "Cancel", "cancelled", "cancel", "change", operations.cancel),
        Verb("terminate", "Terminate", "asked to end", "terminate", "change", operations.terminate),
        Verb("delete", "Delete", "deleted", "delete", "delete", operations.delete),
    )
}


def verbs_of(status: str) -> list[Verb]:
    """Return the actions for tasks in a state."""
    return [verb for verb in VERBS.values() if status in MOVES[verb.move].origins]


def decide(request: HttpRequest, verb: Verb, ids: Sequence[int], delay: float | None = None) -> None:
    """Apply an action to tasks, show a message, and write the admin's log.

    Tasks that have changed their state are skipped and reported.
    """
    chosen: dict[int, tuple[str, str]] = {}
    for some in _batches(ids):
        rows = Task.objects.filter(pk__in=some).values_list("pk", "task_name", "status")
        chosen |= {pk: (name, status) for pk, name, status in rows}
    origins = MOVES[verb.move].origins
    names = {pk: name for pk, (name, status) in chosen.items() if status in origins}
    skipped = Counter(state_label(status).lower() for _, status in chosen.values() if status not in origins)
    changed = 0
    try:
        for some in _batches(list(names)):
            tasks = Task.objects.filter(pk__in=some)
            changed += verb.act(tasks, delay) if verb.takes_delay else verb.act(tasks)
    except DatabaseError as error:
        messages.error(
            request,
            f"Database error: {error}. Some tasks may have been changed. Try again.",
        )
    skipped["gone"] += len(ids) - len(chosen)
    skipped["changed in the meantime"] += len(names) - changed
    past = verb.past if delay is None else f"{verb.past} with a delay of {duration(delay)}"
    _report(request, changed, past, +skipped)
    if changed and len(names) <= ENTRIES:
        for pk, name in names.items():
            note(request, past, f"{name} #{pk}", pk, is_deletion=verb.move == "delete")
    elif changed:
        note(request, past, f"{changed:,} tasks between #{min(names)} and #{max(names)}")


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE))


def _report(request: HttpRequest, changed: int, past: str, skipped: "Counter[str]") -> None:
    said = f"{changed:,} {'task was' if changed == 1 else 'tasks were'} {past}."
    if skipped:
        why = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())
        said += f" {skipped.total():,} skipped: {why}."
    messages.add_message(request, messages.WARNING if skipped else messages.SUCCESS, said)


def note(
    request: HttpRequest,
    past: str,
    what: str,
    pk: int | None = None,
    is_deletion: bool = False,
    of: type[Model] = Task,
) -> None:
    """Write an entry to the admin's log."""
    LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(of),
        object_id=pk,
        object_repr=what[:200],
        action_flag=DELETION if is_deletion else CHANGE,
        change_message=past.capitalize(),
    )
