"""The filters of the lists. None of them scans the whole table for its choices."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest

from .. import stats
from ..conf import declared_queues
from ..models import Status, Task
from ..monitoring import inspect
from ..monitoring.formatting import NOTHING, plain
from ..queue import store
from ..queue.database import connect, raw
from ..tasks.function import registry

#: How far back to look for names of tasks, in seconds.
A_DAY = 86_400.0
MOST_CHOICES = 200


class _Filter(SimpleListFilter):
    """Filters by a column. The URL may contain any value, not only the choices."""

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, str]]:
        """Return the choices, and the current value."""
        found = {value: plain(label) for value, label in self.choices_of(request, model_admin)}
        chosen = self.value()
        if chosen is not None:
            found.setdefault(chosen, plain(chosen or NOTHING))
        return list(found.items())[:MOST_CHOICES]

    def choices_of(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        """Return pairs of a value and its label."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Task]) -> QuerySet[Task]:
        """Apply the filter."""
        chosen = self.value()
        return queryset if chosen is None else queryset.filter(**{str(self.parameter_name): chosen})


class QueueFilter(_Filter):
    """The queues that are declared, or in which tasks wait."""

    title = parameter_name = "queue"

    def choices_of(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        db = raw(connect())
        waiting = store.waiting_queues(db) + store.waiting_queues(db, is_async=True)
        of_tasks = {task.options.queue for task in registry.values()}
        return [(name, name) for name in sorted({*of_tasks, *(declared_queues() or ()), *waiting})]


class TaskFilter(_Filter):
    """The names of tasks that ended within a day, wait, or failed."""

    title, parameter_name = "task", "task_name"

    def choices_of(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        names = set(stats.names(A_DAY))
        if model_admin.state == Status.READY:
            names |= inspect.waiting_names()[0].keys()
        if model_admin.state == Status.FAILED:
            names |= {group.task_name for group in inspect.failures()}
        return [(name, name) for name in sorted(names)]


def _most_common(groups: Iterable[inspect.Failures], column: str, unknown: str) -> list[tuple[str, str]]:
    counts: Counter[str] = Counter()
    for group in groups:
        counts[getattr(group, column)] += group.number
    return [(value, f"{value or unknown} ({count:,})") for value, count in counts.most_common()]


class ExceptionFilter(_Filter):
    """The exceptions that failed tasks raised."""

    title = parameter_name = "exception"

    def choices_of(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return _most_common(inspect.failures(), "exception", "none")


class PlaceFilter(_Filter):
    """The places in the code where the selected exception was raised."""

    title = parameter_name = "place"

    def choices_of(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        chosen = request.GET.get("exception")
        groups = [] if chosen is None else inspect.failures()
        return _most_common((one for one in groups if one.exception == chosen), "place", "unknown")
