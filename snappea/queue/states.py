"""The states of a task, and every legal move between them."""

from typing import NamedTuple

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    """A task's status; the label is its name in the admin."""

    SCHEDULED = "scheduled", _("Future")
    READY = "ready", _("Pending")
    RUNNING = "running", _("Active")
    FAILED = "failed", _("Failed")
    INTERRUPTED = "interrupted", _("Dirty")
    SUCCESSFUL = "successful", _("Finished")
    CANCELLED = "cancelled", _("Cancelled")


class Gate(models.IntegerChoices):
    """Whether a ready task may be claimed."""

    OPEN = 0, "may be claimed"
    NEW = 1, "not yet sorted into its lane"
    BLOCKED = 2, "waits for its lane"
    ADDRESSED = 3, "is for one Foreman only"


class Move(NamedTuple):
    """The states that a verb leads from and to; DELETED means that the row is deleted.

    `revoked`: the targets if the task was revoked while it ran.
    """

    origins: tuple[str, ...]
    targets: tuple[str, ...]
    revoked: tuple[str, ...] = ()


DELETED = "deleted"
WAITING = ("ready", "scheduled")
UNSUCCESSFUL = (Status.FAILED, Status.INTERRUPTED, Status.CANCELLED)
KEPT = (*UNSUCCESSFUL, Status.SUCCESSFUL)

#: Every legal move, in the order of a task's life. Each statement's WHERE names the origins of its move.
#: `tests/queue/test_states.py` tries each verb on each state.
MOVES = {
    "enqueue": Move((), (Status.READY, Status.SCHEDULED)),
    "promote": Move((Status.SCHEDULED,), (Status.READY,)),
    "expire": Move((Status.READY, Status.SCHEDULED), (DELETED,)),
    "discard": Move((Status.READY,), (DELETED,)),  # `on_limit="discard"`
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
    # an unusable row; an interrupted, cancelled or successful one is repaired and keeps its status
    "set aside": Move((Status.SCHEDULED, Status.READY, Status.RUNNING, Status.FAILED), (Status.FAILED,)),
    # PostgreSQL: a Foreman leaves, and the tasks that only it could run are deleted
    "dismiss": Move((Status.SCHEDULED, Status.READY), (DELETED,)),
    "purge": Move((Status.SUCCESSFUL,), (DELETED,)),
}

# plain values, which sqlite3 binds faster than members of an enumeration
_SCHEDULED, _READY = Status.SCHEDULED.value, Status.READY.value
_NEW, _OPEN = Gate.NEW.value, Gate.OPEN.value


def waiting_state(
    run_after: str | None, lane: str | None, fair_key: str | None, moment: str
) -> tuple[str, int]:
    """Return the status and the gate of a call with this due time, concurrency group and key at a moment."""
    is_open = lane is None and fair_key is None
    return _SCHEDULED if (run_after or "") > moment else _READY, _OPEN if is_open else _NEW
