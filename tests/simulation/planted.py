"""Faults that the simulation must find: each undoes one thing that the library takes care of."""

from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

from snappea.foreman.admission import Admission
from snappea.foreman.in_flight import InFlight
from snappea.queue import statements


def without_fence() -> None:
    """Let an outcome change its row without a look at the claim."""
    fenced = "claims = ? AND +started_at IS ? AND status = 'running'"
    for name, sql in vars(statements).items():
        if isinstance(sql, str) and name.isupper() and f"id = ? AND {fenced}" in sql:
            setattr(statements, name, sql.replace(fenced, "? IS NOT NULL AND ? IS NOT NULL"))


def groups_too_late() -> None:
    """Check a group that a task has left only after the next claim."""
    note_left, claim = Admission.note_left, Admission.admit_and_claim
    late: list[Any] = []

    def note_later(self: Admission, tasks: Iterable[Any]) -> None:
        late.extend(tasks)

    def claim_first(self: Admission, *arguments: Any) -> Any:
        claimed = claim(self, *arguments)
        note_left(self, late)
        late.clear()
        return claimed

    patch.object(Admission, "note_left", note_later).start()
    patch.object(Admission, "admit_and_claim", claim_first).start()


def cells_too_early() -> None:
    """Empty a cell before the outcome is committed."""
    write, close = InFlight.write, InFlight.close

    def write_and_release(self: InFlight, *arguments: Any) -> Any:
        left = write(self, *arguments)
        self.logbook.release([cell for cell, _ended in (*self.outcomes, *self.unbegun)])
        return left

    def close_only(self: InFlight) -> Any:
        with patch.object(self.logbook, "release"):
            return close(self)

    patch.object(InFlight, "write", write_and_release).start()
    patch.object(InFlight, "close", close_only).start()


#: By their names on the command line.
PLANTED: dict[str, Callable[[], None]] = {
    "fence": without_fence,
    "groups": groups_too_late,
    "cells": cells_too_early,
}
