"""Batches: the list of them, and the page of each."""

from contextlib import suppress
from functools import partial
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from ..models import Batch, Status, Task
from ..monitoring.formatting import plain
from ..monitoring.permissions import may
from ..queue.batches import COUNTED, MEMBERS
from ..queue.callbacks import FAMILY, calls_of
from ..queue.dialects import MOST_COUNTED, counted
from ..queue.states import UNSUCCESSFUL
from .columns import ago, state_label
from .console import ConsoleAdmin

#: How many batches the overview and a list show.
FEW, MANY = 5, 50
#: Among how many they are looked for.
NEWEST = 1000
#: How much of a description a row shows, and a page, in characters.
MOST, LONGEST = 120, 2000
#: The length of a bar, and that of its shortest part.
LENGTH, SHORTEST = 1000, 10
_COUNTED = COUNTED | {status.value: counted(f"SELECT 1 FROM {rows}") for status, rows in MEMBERS.items()}
_NUMBERS = {
    f"all_{name}": RawSQL(
        f"""{FAMILY.format("snappea_batch.id")}
            SELECT sum({what}) FROM snappea_batch AS one JOIN family USING (id)""",
        (),
    )
    for name, what in _COUNTED.items()
}


class BatchPages(ConsoleAdmin):
    """The list of batches, and the page of each."""

    tab = "tasks"

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of both."""
        show = self.admin_site.admin_view(require_safe(self.show_batch))
        return [
            path("batch/", show, name="snappea_batches"),
            path("batch/<int:pk>/", show, name="snappea_batch"),
        ]

    def show_batch(self, request: HttpRequest, pk: int | None = None) -> HttpResponse:
        """Show a batch, or the newest ones."""
        if not may(request, "view"):
            raise PermissionDenied
        name, build = ("batches", _list) if pk is None else ("batch", partial(_details, pk))
        live = self.live(request, f"snappea/{name}.html", build)
        title = _("Batches") if pk is None else _("Batch #%(id)s") % {"id": pk}
        return self.render(request, "snappea/dashboard.html", title=title, live=live)


def open_batches(most: int = FEW) -> list[dict[str, Any]]:
    """Return the rows of the newest batches that have not finished, but not of chains and those in others."""
    return rows(_without_chains(Batch.objects.filter(finished_at=None).order_by("-pk"))[:most])


def _without_chains(batches: QuerySet[Batch]) -> QuerySet[Batch]:
    """Return the newest of these, but not those in others, and none of a single task that another follows."""
    newest = batches.filter(parent_id=None)[:NEWEST]
    is_chain = Q(description="", total=1, on_success__isnull=False, on_failure=None, on_complete=None)
    order = batches.query.order_by
    return Batch.objects.filter(pk__in=newest.values("pk")).exclude(is_chain).order_by(*order)


def rows(batches: QuerySet[Batch]) -> list[dict[str, Any]]:
    """Return what the templates show of batches. The numbers are with the batches in them."""
    return [_row(batch) for batch in batches.annotate(**_NUMBERS)]


def _row(batch: Batch) -> dict[str, Any]:
    found = {name: int(getattr(batch, f"all_{name}")) for name in COUNTED}
    total, words = found["total"], {"succeeded": _("Succeeded"), "gone": _("Gone")}
    states = "succeeded", *UNSUCCESSFUL, Status.RUNNING, Status.READY, Status.SCHEDULED, "gone"
    is_all = all(found[state] <= MOST_COUNTED for state in states[1:-1])
    found["gone"] = max(0, total - sum(found[state] for state in states[:-1])) if is_all else 0
    whole, parts, start = sum(found[state] for state in states), [], 0
    for state in states:
        width = max(SHORTEST, round(LENGTH * found[state] / whole)) if found[state] else 0
        q = "" if state in words else f"batch:{batch.pk} state:{state}"
        parts.append((state, words.get(state) or state_label(state), found[state], q, start, width))
        start += width
    return {
        **found,
        "id": batch.pk,
        "name": plain(" ".join(batch.description[:MOST].split())),
        "failures": sum(found[state] for state in UNSUCCESSFUL),
        "waiting": found["ready"] + found["scheduled"],
        "parts": parts,
        "width": start or LENGTH,
        "created": ago(batch.created_at),
        "finished": batch.finished_at and ago(batch.finished_at),
    }


def _list() -> dict[str, Any]:
    ended = _without_chains(Batch.objects.exclude(finished_at=None).order_by("-finished_at"))
    return {"batches": open_batches(MANY) + rows(ended[:MANY])}


def _details(pk: int) -> dict[str, Any]:
    batch = get_object_or_404(Batch.objects.annotate(**_NUMBERS), pk=pk)
    ids = {name: getattr(batch, f"{name}_id") for name in ("success", "failure", "complete")}
    tasks = Task.objects.in_bulk([task_id for task_id in ids.values() if task_id])
    return {
        "batch": _row(batch),
        "description": plain(batch.description[:LONGEST]),
        "batches": rows(Batch.objects.filter(parent_id=pk).order_by("-pk")[:MANY]),
        "around": batch.parent_id and Batch.objects.filter(pk=batch.parent_id).first(),
        "callbacks": [
            (f"on_{name}", _callback(text), task_id, tasks.get(task_id))
            for name, task_id in ids.items()
            if (text := getattr(batch, f"on_{name}"))
        ],
    }


def _callback(text: str) -> str:
    # the row may have been written by hand
    with suppress(AttributeError, KeyError, ValueError, TypeError, RecursionError):
        text = " → ".join(call.task_name for call in calls_of(text))
    return plain(text[:MOST])
