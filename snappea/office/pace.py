"""The pace: how much work the crew gets done, and so how much of it is claimed ahead."""

import time
from collections.abc import Collection

from ..records import Outcome

#: How much work is claimed ahead, in seconds: nothing, where a task takes longer than that.
AHEAD = 0.005
MOST_AHEAD = 1000
#: What was claimed ahead is given back after so many seconds without progress.
STALE_AFTER = 0.1


class Pace:
    """Learns from each round; `ahead` is how many tasks to claim beside those that can be run at once."""

    def __init__(self, most: int = MOST_AHEAD) -> None:
        self._most = most
        self.ahead = 0
        self._last_round = self._last_progress = time.monotonic()

    def plan(self, outcomes: Collection[tuple[int, Outcome]], size: int) -> None:
        """Learn from what just ended how much a crew of `size` gets done in AHEAD seconds."""
        if count := len(outcomes):
            seconds = sum(outcome.duration for _cell, outcome in outcomes if not outcome.claim.is_async)
            by_duration = size * AHEAD * count / max(seconds, 1e-6)
            by_rate = AHEAD * count / max(time.monotonic() - self._last_round, 1e-6)
            self.ahead = int(min(by_duration, by_rate, self._most))

    def note_round(self, has_progress: bool) -> None:
        """Take notice of a round, in which something had ended or not."""
        self._last_round = time.monotonic()
        if has_progress:
            self._last_progress = self._last_round

    def note_progress(self) -> None:
        """Take notice that what waits now has not waited before."""
        self._last_progress = time.monotonic()

    def is_stale(self) -> bool:
        """Tell whether what was claimed ahead waits although no worker makes progress."""
        return time.monotonic() - self._last_progress > STALE_AFTER
