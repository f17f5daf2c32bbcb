"""The Foreman's accounts: what it has claimed, what of that has ended, and what is not yet written."""

import time
from collections.abc import Iterable, Iterator
from logging import WARNING

from .. import context, queue
from ..link import Link
from ..log import say
from ..logbook import Logbook
from ..records import Claim, Outcome


class Accounts:
    """The claims in flight, each under the number of its logbook cell."""

    def __init__(self) -> None:
        self.in_flight: dict[int, Claim] = {}
        #: Collected from the crew, but not yet written.
        self.outcomes: list[tuple[int, Outcome]] = []
        #: Taken back from the crew, but not yet given back.
        self.unbegun: list[tuple[int, Claim]] = []
        #: A transaction failed: it may have been committed all the same.
        self.is_uncertain = False
        self._next_progress = 0.0

    def open(self, claims: Iterable[Claim], logbook: Logbook) -> list[tuple[int, Claim]]:
        """Enter claims, and return them with the numbers of their cells.

        Raises TypeError or ValueError, and enters none, for numbers that do not fit in there.
        """
        try:
            entered = [(logbook.enter(claim.id, claim.claims), claim) for claim in claims]
        except (TypeError, ValueError):
            logbook.retain(self.in_flight)
            raise
        self.in_flight |= entered
        return entered

    def running(self) -> Iterator[Claim]:
        """Yield the claims that have not ended."""
        ended = {cell for cell, _ in (*self.outcomes, *self.unbegun)}
        return (claim for cell, claim in self.in_flight.items() if cell not in ended)

    def count_running(self) -> int:
        """Return how many claims have not ended."""
        return len(self.in_flight) - len(self.outcomes) - len(self.unbegun)

    def has_unwritten(self) -> bool:
        """Tell whether the end of a claim is not yet written."""
        return bool(self.outcomes or self.unbegun)

    def is_to_be_written(self) -> bool:
        """Tell whether there is something that cannot wait."""
        return self.has_unwritten() or self.is_uncertain or self._is_progress_due()

    def _is_progress_due(self) -> bool:
        return context.has_progress() and time.monotonic() >= self._next_progress

    def left(self) -> list[Claim]:
        """Return the claims that have ended, or will not begin, and are not yet written."""
        ended = [outcome.claim for _cell, outcome in self.outcomes]
        return ended + [claim for _cell, claim in self.unbegun] if self.unbegun else ended

    def write(self, db: Link, moment: str) -> None:
        """Write what became of claims, and how far others are."""
        if not self.has_unwritten() and not self.is_uncertain and not context.has_progress():
            return
        if self.is_uncertain:
            queue.give_back_orphans(db, self.in_flight.values())
        if self._is_progress_due():
            self._next_progress = time.monotonic() + context.PROGRESS_EVERY
            queue.note_progress(db, context.take_progress())
        elif context.has_progress():  # the last words of what ends now, before it has ended
            queue.note_progress(
                db, context.take_progress(outcome.claim.id for _cell, outcome in self.outcomes)
            )
        lost = queue.settle(db, moment, [outcome for _cell, outcome in self.outcomes])
        if lost and not self.is_uncertain:
            say(WARNING, "%d finished tasks had been changed by somebody else; they were left alone.", lost)
        queue.give_back(db, [claim for _cell, claim in self.unbegun])

    def close(self, logbook: Logbook) -> list[Outcome]:
        """Forget the claims whose end is committed, and return their outcomes."""
        self.is_uncertain = False
        finished = [outcome for _cell, outcome in self.outcomes]
        for cell, _ in (*self.outcomes, *self.unbegun):
            del self.in_flight[cell]
            logbook.free.append(cell)
        self.outcomes, self.unbegun = [], []
        return finished
