"""Recovery: settles the tasks that a dead Foreman left running."""

from collections.abc import Mapping

from . import statements as sql
from .database import RawConnection
from .logbook import Entry, Note
from .records import Fence, Recovered, error_line
from .states import Status
from .store import end_members, interrupt, recheck_groups


def recover(db: RawConnection, moment: str, notes: Mapping[Entry, Note] | None) -> list[Recovered]:
    """Settle each running task by its note in the dead Foreman's logbook.

    A claim is noted before it is committed, so a task without a note may have begun.
    """
    recovered = []
    for *fence, name, batch_id in db.execute(sql.RUNNING).fetchall():
        note = (notes or {}).get(Entry.of(*fence), Note.BEGUN)
        recovered.append(Recovered(fence[0], name, *_recover(db, moment, tuple(fence), note)))
        if note is not Note.BEGUN:  # interrupt() did
            end_members(db, [batch_id], int(note is Note.SUCCEEDED))
    recheck_groups(db)
    return recovered


def _recover(db: RawConnection, moment: str, fence: Fence, note: Note) -> tuple[str, str | None]:
    """Settle one task. Return its outcome, and its status if it was interrupted."""
    lost = "the Foreman died before the {} was written."
    if note is Note.CLAIMED:
        db.execute(sql.GIVE_BACK, fence)
        return "never begun", None
    if note is Note.SUCCEEDED:
        why = f"It succeeded; {lost.format('result')}"
        if not db.execute(sql.KEEP_WITHOUT_RESULT, (moment, moment, why, *fence)).rowcount:
            db.execute(sql.SUCCEED, fence)
        return "succeeded", None
    why = f"It raised; {lost.format('traceback')}"
    if note is Note.FAILED:
        db.execute(sql.FAIL, (moment, "", "", why, error_line(moment, why), *fence))
        return "failed", None
    if note is Note.TO_RETRY:
        db.execute(sql.RETRY, (moment, why, error_line(moment, why), *fence))
        return "to be retried", None
    if note is Note.REVOKED:
        why = f"It was terminated; {lost.format('traceback')}"
        db.execute(sql.TERMINATE, (moment, why, error_line(moment, why), *fence))
        return "cancelled", None
    status = interrupt(db, moment, fence, "The Foreman died while this task ran.")
    return ("interrupted, to run again" if status == Status.READY else "interrupted"), status
