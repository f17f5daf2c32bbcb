"""The pace: how much work the crew gets done, and so how much of it is claimed ahead."""

import time
from collections.abc import Collection

from ..queue.records import Outcome

#: How much work is claimed ahead, in seconds: nothing, where a task takes longer than that.
AHEAD = 0.005
MOST_AHEAD = 1000
#: What was claimed ahead is given back when it has waited for so many seconds.
STALE_AFTER = 0.1


class Prefetch:
    """Learns from each round; `ahead` is how many tasks to claim beside those that can be run at once."""

    def __init__(self, most: int = MOST_AHEAD) -> None:
        self._most = most
        self.ahead = 0
        self._last_round = time.monotonic()
        self._mark, self._marked_at = 0, 0.0

    def plan(self, outcomes: Collection[tuple[int, Outcome]], size: int) -> None:
        """Learn from what just ended, or did not, how much a crew of `size` gets done in AHEAD seconds."""
        if count := len(outcomes):
            seconds = sum(outcome.duration for _cell, outcome in outcomes if not outcome.claim.is_async)
            by_duration = size * AHEAD * count / max(seconds, 1e-6)
            by_rate = AHEAD * count / max(time.monotonic() - self._last_round, 1e-6)
            self.ahead = int(min(by_duration, by_rate, self._most))
        else:
            self.ahead = 0  # whatever runs now may take long

    def note_round(self) -> None:
        """Record the time of a round."""
        self._last_round = time.monotonic()

    def is_stale(self, handed: int, waiting: int) -> bool:
        """Tell whether a claim has waited for a worker for STALE_AFTER, and at most for twice as long.

        `handed`: how many claims were ever handed to the workers; `waiting`: how many of them still wait.
        """
        here = time.monotonic()
        if handed - waiting >= self._mark:  # all that waited at the mark has begun
            self._mark, self._marked_at = handed, here
        return here - self._marked_at > STALE_AFTER
