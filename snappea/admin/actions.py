"""What a person may do to tasks in the admin: its permission, its words, and a note of who did it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from ..models import MOVES, Status, Task
from ..monitoring.formatting import duration
from ..queue import store

#: So many tasks are looked at together.
AT_ONCE = 5000
#: Up to so many tasks each get an entry in the admin's log; more of them share one.
ENTRIES = 100


class Verb(NamedTuple):
    """Something to do to tasks. `move`: its name in MOVES. `past`: "3 tasks were ..."."""

    name: str
    label: str
    past: str
    move: str
    permission: str
    act: Callable[[QuerySet[Task], float | None], int]
    takes_delay: bool = False


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "requeue", "Requeue", "requeued", "requeue", "change", lambda tasks, delay: store.requeue(tasks)
        ),
        Verb(
            "postpone", "Requeue with a delay", "requeued with a delay", "requeue", "change",
            store.requeue, takes_delay=True,
        ),
        Verb("cancel", "Cancel", "cancelled", "cancel", "change", lambda tasks, delay: store.cancel(tasks)),
        Verb(
            "terminate", "Terminate", "asked to end", "terminate", "change",
            lambda tasks, delay: store.terminate(tasks),
        ),
        Verb("delete", "Delete", "deleted", "delete", "delete", lambda tasks, delay: store.delete(tasks)),
    )
}  # fmt: skip


def verbs_of(status: str) -> list[Verb]:
    """Return what can be done to tasks in a state."""
    return [verb for verb in VERBS.values() if status in MOVES[verb.move].origins]


def decide(request: HttpRequest, verb: Verb, ids: Sequence[int], delay: float | None = None) -> int:
    """Do something to tasks, tell the user what came of it, and note it in the admin's log.

    Those in a state of which it cannot be done are left alone, as are those that get there in this moment.
    Returns how many were changed.
    """
    chosen: dict[int, tuple[str, str]] = {}
    for some in _batches(ids):
        rows = Task.objects.filter(pk__in=some).values_list("pk", "task_name", "status")
        chosen |= {pk: (name, status) for pk, name, status in rows}
    able = [pk for pk, (_name, status) in chosen.items() if status in MOVES[verb.move].origins]
    changed = 0
    try:
        for some in _batches(able):
            changed += verb.act(Task.objects.filter(pk__in=some), delay)
    except DatabaseError as error:
        messages.error(request, f"The queue's database refused: {error}. Look again; some may be done.")
    skipped = Counter(
        Status(status).label.lower()
        for pk, (_name, status) in chosen.items()
        if status not in MOVES[verb.move].origins
    )
    skipped["gone"] += len(ids) - len(chosen)
    skipped["changed in this moment"] += len(able) - changed
    words = verb.past if delay is None else f"{verb.past} of {duration(delay)}"
    _tell(request, changed, words, +skipped)
    if changed:
        _note(request, verb, words, changed, {pk: chosen[pk][0] for pk in able})
    return changed


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE))


def _tell(request: HttpRequest, changed: int, words: str, skipped: "Counter[str]") -> None:
    said = f"{changed:,} {'task was' if changed == 1 else 'tasks were'} {words}."
    if skipped:
        why = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())
        said += f" {skipped.total():,} skipped: {why}."
    messages.add_message(request, messages.WARNING if skipped else messages.SUCCESS, said)


def _note(request: HttpRequest, verb: Verb, words: str, changed: int, names: dict[int, str]) -> None:
    """Write who did what into the admin's log."""
    if len(names) <= ENTRIES:
        for pk, name in names.items():
            note(request, words.capitalize(), f"{name} #{pk}", pk, is_deletion=verb.move == "delete")
    else:
        first, last = min(names), max(names)
        note(request, words.capitalize(), f"{changed:,} tasks between #{first} and #{last}")


def note(
    request: HttpRequest,
    words: str,
    what: str,
    pk: int | None = None,
    is_deletion: bool = False,
    of: type[Model] = Task,
) -> None:
    """Write one entry of the admin's log."""
    LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(of),
        object_id=pk,
        object_repr=what[:200],
        action_flag=DELETION if is_deletion else CHANGE,
        change_message=words,
    )
