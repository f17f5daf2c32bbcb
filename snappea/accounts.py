"""The Foreman's accounts: what it has claimed, what of that has ended, and what is not yet written."""

from collections.abc import Iterable, Iterator

from .logbook import Logbook
from .records import Claim, Outcome


class Accounts:
    """The claims in flight, each under the number of its logbook cell."""

    def __init__(self) -> None:
        self.in_flight: dict[int, Claim] = {}
        #: Collected from the crew, but not yet written.
        self.outcomes: list[tuple[int, Outcome]] = []
        #: Taken back from the crew, but not yet given back.
        self.unbegun: list[tuple[int, Claim]] = []

    def open(self, claims: Iterable[Claim], logbook: Logbook) -> list[tuple[int, Claim]]:
        """Enter claims, and return them with the numbers of their cells."""
        entered = [(logbook.enter(claim.id, claim.claims), claim) for claim in claims]
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

    def close(self, logbook: Logbook) -> list[Outcome]:
        """Forget the claims whose end is committed, and return their outcomes."""
        finished = [outcome for _cell, outcome in self.outcomes]
        for cell, _ in (*self.outcomes, *self.unbegun):
            del self.in_flight[cell]
            logbook.free.append(cell)
        self.outcomes, self.unbegun = [], []
        return finished
