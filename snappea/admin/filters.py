"""By what the lists of the admin are narrowed down. No choice costs a look at the whole table."""

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
from ..tasks.registry import registry

#: How far back names of tasks are looked for, in seconds.
A_DAY = 86_400.0
MOST_CHOICES = 200


class _Filter(SimpleListFilter):
    """By a column, for which only some values are offered, but any may stand in the address."""

    state: str | None = None  # of the tasks in the list

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, str]]:
        """Return the values that are offered, and the one that is chosen."""
        self.state = getattr(model_admin, "state", None)
        offered = dict(self.offered())
        chosen = self.value()
        if chosen is not None:
            offered.setdefault(chosen, chosen or NOTHING)
        return [(value, plain(label)) for value, label in offered.items()][:MOST_CHOICES]

    def offered(self) -> Iterable[tuple[str, str]]:
        """Return pairs of a value and what it is called."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Task]) -> QuerySet[Task]:
        """Narrow down."""
        return (
            queryset if self.value() is None else queryset.filter(**{str(self.parameter_name): self.value()})
        )


class QueueFilter(_Filter):
    """By the queue."""

    title = parameter_name = "queue"

    def offered(self) -> Iterable[tuple[str, str]]:
        """Offer those that exist, or in which something waits."""
        of_tasks = {task.options.queue for task in registry.values()}
        db = raw(connect())
        waiting = store.waiting_queues(db) + store.waiting_queues(db, is_async=True)
        return [(name, name) for name in sorted({*of_tasks, *(declared_queues() or ()), *waiting})]


class TaskFilter(_Filter):
    """By the name of the task."""

    title, parameter_name = "task", "task_name"

    def offered(self) -> Iterable[tuple[str, str]]:
        """Offer those that wait, ran within a day, or failed."""
        names = set(stats.names(A_DAY))
        if self.state == Status.READY:
            names |= inspect.waiting_names()[0].keys()
        if self.state == Status.FAILED:
            names |= {group.task_name for group in inspect.failures()}
        return [(name, name) for name in sorted(names)]


class ExceptionFilter(_Filter):
    """By the type of the exception."""

    title = parameter_name = "exception"

    def offered(self) -> Iterable[tuple[str, str]]:
        """Offer each that a failed task has raised, the most frequent first."""
        counts: Counter[str] = Counter()
        for group in inspect.failures():
            counts[group.exception] += group.number
        return [(name, f"{name or 'none'} ({count:,})") for name, count in counts.most_common()]


class PlaceFilter(_Filter):
    """By where in the code it was raised; only offered once an exception is chosen."""

    title = parameter_name = "place"

    def __init__(self, request: HttpRequest, params: dict[str, Any], *args: Any) -> None:
        self._exception = request.GET.get("exception")
        super().__init__(request, params, *args)

    def offered(self) -> Iterable[tuple[str, str]]:
        """Offer those of the exception that is chosen."""
        counts: Counter[str] = Counter()
        for group in inspect.failures() if self._exception is not None else ():
            if group.exception == self._exception:
                counts[group.place] += group.number
        return [(place, f"{place or 'nowhere'} ({count:,})") for place, count in counts.most_common()]
