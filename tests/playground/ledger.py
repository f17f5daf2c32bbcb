"""An append-only file in which tasks note what they do: what really happened, whatever the queue says."""

import os
import time
from collections import Counter
from pathlib import Path

from django.conf import settings


def note(*words: object) -> None:
    """Append a line: the moment, and the words. One write, so that it is there whole or not at all."""
    line = " ".join(map(str, (time.monotonic(), *words))) + "\n"
    descriptor = os.open(settings.DIR / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


class Ledger:
    """What the tasks of a site noted."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "ledger"

    def lines(self) -> list[list[str]]:
        """Return the words of each line, without the moment."""
        return [line.split()[1:] for line in self.text().splitlines()]

    def moments(self, *words: object) -> list[float]:
        """Return when a line of these words was noted, on the monotonic clock."""
        wanted = [str(word) for word in words]
        split = (line.split() for line in self.text().splitlines())
        return [float(moment) for moment, *rest in split if rest == wanted]

    def count(self, *words: object) -> int:
        """Return how many lines have these words."""
        return len(self.moments(*words))

    def keys(self, word: str) -> Counter[str]:
        """Return how often each key was noted with a word."""
        return Counter(line[1] for line in self.lines() if line[0] == word)

    def text(self) -> str:
        """Return all of it, but for a line that is being written."""
        text = self.path.read_text() if self.path.exists() else ""
        return text[: text.rfind("\n") + 1]
