"""The states of a task, and the moves between them."""

from typing import NamedTuple

from django.db import models


class Status(models.TextChoices):
    """Where a task stands. The label is what the admin calls it."""

    SCHEDULED = "scheduled", "Future"
    READY = "ready", "Pending"
    RUNNING = "running", "Active"
    FAILED = "failed", "Failed"
    INTERRUPTED = "interrupted", "Dirty"
    SUCCESSFUL = "successful", "Finished"
    CANCELLED = "cancelled", "Cancelled"


class Gate(models.IntegerChoices):
    """Whether a ready task may be claimed."""

    OPEN = 0, "may be claimed"
    NEW = 1, "not yet sorted into its lane"
    SHUT = 2, "waits for its lane"
    ADDRESSED = 3, "is for one Foreman only"


class Move(NamedTuple):
    """A verb of a task's life: from which states to which; DELETED stands for "the row goes"."""

    origins: tuple[str, ...]
    targets: tuple[str, ...]


DELETED = "deleted"
WAITING = ("ready", "scheduled")

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
        (Status.READY, Status.SCHEDULED),
    ),
    "delete": Move(
        (Status.FAILED, Status.INTERRUPTED, Status.CANCELLED, Status.SUCCESSFUL),
        (DELETED,),
    ),
    "hand over": Move((Status.SCHEDULED, Status.READY), (DELETED,)),
    "expire": Move((Status.READY, Status.SCHEDULED), (DELETED,)),
    "purge": Move((Status.SUCCESSFUL,), (DELETED,)),
}
