"""The Task: its columns, its states, and the moves between them."""

import json
from typing import Any, NamedTuple

from django.db import models
from django.db.models import Q
from django.utils import timezone


class Status(models.TextChoices):
    """Where a task stands. The label is what the admin calls it."""

    SCHEDULED = "scheduled", "Future"
    READY = "ready", "Pending"
    RUNNING = "running", "Active"
    FAILED = "failed", "Failed"
    INTERRUPTED = "interrupted", "Dirty"
    SUCCESSFUL = "successful", "Finished"
    CANCELLED = "cancelled", "Cancelled"


class Move(NamedTuple):
    """A verb of a task's life: from which states to which; DELETED stands for "the row goes"."""

    origins: tuple[str, ...]
    targets: tuple[str, ...]


DELETED = "deleted"

#: Every legal move. Anything else is refused: a statement's WHERE names its origins.
MOVES = {
    "enqueue": Move((), (Status.READY, Status.SCHEDULED)),
    "promote": Move((Status.SCHEDULED,), (Status.READY,)),
    "claim": Move((Status.READY,), (Status.RUNNING,)),
    "give back": Move((Status.RUNNING,), (Status.READY,)),
    "succeed": Move((Status.RUNNING,), (DELETED, Status.SUCCESSFUL)),
    "retry": Move((Status.RUNNING,), (Status.SCHEDULED,)),
    "fail": Move((Status.RUNNING,), (Status.FAILED,)),
    "interrupt": Move((Status.RUNNING,), (Status.READY, Status.INTERRUPTED)),
    "cancel": Move((Status.SCHEDULED, Status.READY), (DELETED,)),
    "terminate": Move((Status.RUNNING,), (Status.CANCELLED,)),
    "requeue": Move(
        (Status.FAILED, Status.INTERRUPTED, Status.CANCELLED, Status.SUCCESSFUL, Status.SCHEDULED),
        (Status.READY,),
    ),
    "expire": Move((Status.READY, Status.SCHEDULED), (DELETED,)),
    "purge": Move((Status.SUCCESSFUL,), (DELETED,)),
}


class JSONText(models.TextField):  # type: ignore[type-arg]  # not subscriptable at run time
    """JSON kept as text, so that a row that cannot be read can still be looked at."""

    _pyi_private_set_type: Any  # for django-stubs: what may be assigned

    def get_prep_value(self, value: Any) -> Any:
        """Encode what is not text yet: `Task.objects.create(task_name=..., args=[42])` works."""
        return value if isinstance(value, str) else json.dumps(value, allow_nan=False)

    def deconstruct(self) -> Any:
        """Be a plain TextField to migrations, which then outlive this class."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs


class Task(models.Model):
    """One call of a task function, from `delay()` to its end.

    `Task.objects.create(task_name="shop.tasks.ship", args=[42])` enqueues as well as `ship.delay(42)` does.
    """

    task_name = models.CharField(max_length=255)
    args = JSONText(default="[]", db_default="[]")
    kwargs = JSONText(default="{}", db_default="{}")
    queue = models.CharField(max_length=100, default="default", db_default="default")
    priority = models.SmallIntegerField(default=0, db_default=0)
    acks_late = models.BooleanField(default=False, db_default=False)

    status = models.CharField(
        max_length=11, choices=Status.choices, default=Status.READY, db_default=Status.READY.value
    )
    enqueued_at = models.DateTimeField(default=timezone.now)
    run_after = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    #: How often it was started.
    attempts = models.IntegerField(default=0, db_default=0)
    #: How often it was ever claimed, never reset: the fence against a late finish.
    claims = models.IntegerField(default=0, db_default=0)
    interruptions = models.IntegerField(default=0, db_default=0)
    #: Why it failed or was interrupted; a traceback where there is one.
    error = models.TextField(default="", db_default="", blank=True)

    class Meta:
        # one partial index for each question that the Foreman asks: what is next, what is next due,
        # and what is neither; an index more is a microsecond more for each enqueue
        indexes = [
            models.Index(fields=["-priority"], name="snappea_ready", condition=Q(status="ready")),
            models.Index(fields=["run_after"], name="snappea_scheduled", condition=Q(status="scheduled")),
            models.Index(
                fields=["status"], name="snappea_begun", condition=~Q(status__in=("ready", "scheduled"))
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_name} #{self.pk}"
