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
    BLOCKED = 2, "waits for its lane"
    ADDRESSED = 3, "is for one Foreman only"


class Move(NamedTuple):
    """A verb of a task's life: from which states it leads to which; DELETED means that the row goes.

    `revoked`: where it leads instead if the task was revoked while it ran.
    """

    origins: tuple[str, ...]
    targets: tuple[str, ...]
    revoked: tuple[str, ...] = ()


DELETED = "deleted"
WAITING = ("ready", "scheduled")
KEPT = (Status.FAILED, Status.INTERRUPTED, Status.CANCELLED, Status.SUCCESSFUL)

#: Every legal move, in the order of a task's life. A statement's WHERE names its origins: anything else
#: changes nothing. `tests/queue/test_states.py` tries each verb on each state.
MOVES = {
    "enqueue": Move((), (Status.READY, Status.SCHEDULED)),
    "promote": Move((Status.SCHEDULED,), (Status.READY,)),
    "expire": Move((Status.READY, Status.SCHEDULED), (DELETED,)),
    "claim": Move((Status.READY,), (Status.RUNNING,)),
    "expire when claimed": Move((Status.RUNNING,), (DELETED,)),
    "give back": Move((Status.RUNNING,), (Status.READY,), revoked=(Status.CANCELLED,)),
    "succeed": Move((Status.RUNNING,), (DELETED, Status.SUCCESSFUL)),
    "retry": Move((Status.RUNNING,), (Status.SCHEDULED,)),
    "fail": Move((Status.RUNNING,), (Status.FAILED,)),
    "revoke": Move((Status.RUNNING,), (Status.RUNNING,)),
    "terminate": Move((Status.RUNNING,), (Status.CANCELLED,)),
    "interrupt": Move((Status.RUNNING,), (Status.READY, Status.INTERRUPTED), revoked=(Status.CANCELLED,)),
    "requeue": Move((*KEPT, Status.SCHEDULED), (Status.READY, Status.SCHEDULED)),
    "delete": Move(KEPT, (DELETED,)),
    "cancel": Move((Status.SCHEDULED, Status.READY), (DELETED,)),
    "hand over": Move((Status.SCHEDULED, Status.READY), (DELETED,)),  # to Celery
    # an unusable row; one that is interrupted, cancelled or successful is repaired and stays what it is
    "set aside": Move((Status.SCHEDULED, Status.READY, Status.RUNNING, Status.FAILED), (Status.FAILED,)),
    # PostgreSQL: a Foreman leaves, and with it what only that Foreman was to run
    "dismiss": Move((Status.SCHEDULED, Status.READY), (DELETED,)),
    "purge": Move((Status.SUCCESSFUL,), (DELETED,)),
}
