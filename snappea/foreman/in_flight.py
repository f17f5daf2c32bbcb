"""The claims in flight: what was claimed, what has ended, and what is not yet written.

Everything about them is counted here: free cells, threads, slots of the event loop, tasks started.
"""

import time
from collections.abc import Collection, Iterable
from logging import ERROR, WARNING

from django.db import DataError

from ..log import clean, say
from ..queue import store
from ..queue.database import RawConnection
from ..queue.logbook import Logbook
from ..queue.quarantine import is_of_values
from ..queue.records import Claim, Fence, Outcome, Progress, about, added
from ..tasks.context import PROGRESS_EVERY, take_progress, unwritten_progress
from ..tasks.kept_log import open_logs, take_log, unwritten_logs


class Refused(DataError):
    """The database refused one of the outcomes. The next try finds out which."""


class InFlight:
    """The claims in flight, by the number of their logbook cell.

    A claim enters before its transaction commits, so that no later failure loses it.
    """

    #: Set before the first claim.
    logbook: Logbook

    def __init__(self) -> None:
        self.claims: dict[int, Claim] = {}
        #: How many claims were or will be handed to the workers.
        self.started = 0
        #: Claims that are not yet handed to the workers.
        self.entered: list[tuple[int, Claim]] = []
        #: The cells of the claims that run on the event loop.
        self.on_loop: set[int] = set()
        #: Outcomes that are not yet written.
        self.outcomes: list[tuple[int, Outcome]] = []
        #: Claims to give back instead of starting them.
        self.unbegun: list[tuple[int, Claim]] = []
        self._progress: list[Progress] = []  # not yet committed
        self._logs: dict[Fence, str] = {}  # not yet committed, either
        #: When to take the progress and the logs of all tasks, by time.monotonic().
        self.next_notes = 0.0
        self._is_uncertain = False  # a transaction failed, but may have been committed
        self._is_refused = False  # the database refused one of the outcomes

    def open(self, claims: Iterable[Claim]) -> None:
        """Enter claims, in the transaction that makes them.

        Raises TypeError or ValueError for a number that does not fit into a cell. Then call abandon().
        """
        enter, held, entered = self.logbook.enter, self.claims, self.entered
        for claim in claims:
            cell = enter(claim)
            held[cell] = claim
            entered.append((cell, claim))
            self.started += 1
            if claim.is_async:
                self.on_loop.add(cell)

    def take_entered(self) -> list[tuple[int, Claim]]:
        """Return the claims that entered since the last call, to hand them to the workers."""
        entered, self.entered = self.entered, []
        return entered

    def abandon(self) -> None:
        """Give back what was not handed to the workers, after a transaction that may not have committed."""
        self.take_back(self.take_entered())
        self._is_uncertain = True

    def take_back(self, unbegun: Collection[tuple[int, Claim]]) -> None:
        """Give back claims that no worker has started, in the next transaction."""
        self.unbegun += unbegun
        self.started -= len(unbegun)
        self.on_loop.difference_update([cell for cell, _claim in unbegun])

    def collect(self, outcomes: Collection[tuple[int, Outcome]]) -> None:
        """Take over the outcomes of claims that have ended."""
        self.outcomes += outcomes
        if self.on_loop:
            self.on_loop.difference_update([cell for cell, _outcome in outcomes])

    def running(self) -> list[Claim]:
        """Return the claims that have not ended."""
        ended = {cell for cell, _ in (*self.outcomes, *self.unbegun)}
        return [claim for cell, claim in self.claims.items() if cell not in ended]

    def count_running(self) -> int:
        """Return how many claims have not ended."""
        return len(self.claims) - len(self.outcomes) - len(self.unbegun)

    def is_about_to_begin(self, queue: str) -> bool:
        """Return whether a worker has just taken a claim of a queue."""
        unbegun = {cell for cell, _claim in self.unbegun}
        claims = ((cell, claim) for cell, claim in self.claims.items() if cell not in unbegun)
        return any(claim.queue == queue and not self.logbook.is_begun(cell) for cell, claim in claims)

    def is_to_be_written(self, here: float) -> bool:
        """Return whether there is something to write. `here`: time.monotonic()."""
        is_due = (unwritten_progress or unwritten_logs) and here >= self.next_notes
        return bool(self.outcomes or self.unbegun or self._progress or self._logs or is_due)

    def write(self, db: RawConnection, moment: str) -> list[Claim]:
        """Write outcomes and notes, and give claims back. Return the claims that are no longer running."""
        if unwritten_progress or open_logs:
            self._take_notes()
        if self._progress:
            store.note_progress(db, self._progress)
        if self._logs:
            store.append_logs(db, self._logs)
        left = []
        if self.outcomes:
            left = [outcome.claim for _cell, outcome in self.outcomes]
            lost = self._settle(db, moment)
            if lost and not self._is_uncertain:
                said = "%d finished tasks had been changed by another process and were left as they are."
                say(WARNING, said, lost)
        if self.unbegun:
            unbegun = [claim for _cell, claim in self.unbegun]
            store.give_back(db, unbegun)
            left += unbegun
        return left

    def _take_notes(self) -> None:
        """Take progress and logs of all tasks every PROGRESS_EVERY, and otherwise of those that end now."""
        ended = {outcome.claim.fence: outcome for _cell, outcome in self.outcomes}
        is_due = (here := time.monotonic()) >= self.next_notes
        if is_due:
            self.next_notes = here + PROGRESS_EVERY
        self._progress += take_progress(None if is_due else [task_id for task_id, *_fence in ended])
        for fence in [*ended, *(list(unwritten_logs) if is_due else [])]:
            lines, outcome = take_log(fence, closes=fence in ended), ended.get(fence)
            if lines and (outcome is None or outcome.error or outcome.claim.is_kept):
                self._logs[fence] = added(self._logs.get(fence, ""), lines)

    def _settle(self, db: RawConnection, moment: str) -> int:
        """Settle the outcomes together or, after the database refused one of them, one by one."""
        if self._is_refused:
            return sum([self._settle_one(db, moment, position) for position in range(len(self.outcomes))])
        try:
            return store.settle(db, moment, [outcome for _cell, outcome in self.outcomes])
        except Exception as error:
            if not is_of_values(error):
                raise
            self._is_refused = True
            raise Refused(f"{error!r}") from error

    def _settle_one(self, db: RawConnection, moment: str, position: int) -> int:
        """Settle an outcome. If the database refuses it, mark the task as failed."""
        cell, outcome = self.outcomes[position]
        db.execute("SAVEPOINT snappea_outcome")
        try:
            lost = store.settle(db, moment, [outcome])
        except Exception as error:
            db.execute("ROLLBACK TO SAVEPOINT snappea_outcome")
            outcome = outcome.refused(error)
            lost = store.settle(db, moment, [outcome])
            self.outcomes[position] = cell, outcome
            claim, extra = outcome.claim, about(outcome.claim, outcome.duration)
            say(ERROR, "Failed %s #%d: %s", clean(claim.task_name), claim.id, outcome.reason, extra=extra)
        db.execute("RELEASE SAVEPOINT snappea_outcome")
        return lost

    def close(self) -> list[Outcome]:
        """Remove the claims that were just written and committed, and return their outcomes."""
        self._is_uncertain = self._is_refused = False
        if self._progress:
            self._progress = []
        if self._logs:
            self._logs = {}
        if not (self.outcomes or self.unbegun):
            return []
        finished = [outcome for _cell, outcome in self.outcomes]
        cells = [cell for cell, _ended in (*self.outcomes, *self.unbegun)]
        for cell in cells:
            del self.claims[cell]
        self.logbook.release(cells)
        self.outcomes, self.unbegun = [], []
        return finished
