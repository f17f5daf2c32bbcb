"""The shortest list of events that still breaks a promise."""

import re
import time
from collections.abc import Callable, Sequence

from .events import Event

#: How long to look for a shorter one, in seconds.
PATIENCE = 60.0


def kind_of(broken: str) -> str:
    """Return which promise was broken, without numbers and names."""
    return " ".join(re.sub(r"#\d+ \w+|[\d.:#]+|\w+\.tasks\.\S+", "", broken).split()[:5])


def shrink(events: Sequence[Event], run: Callable[[Sequence[Event]], str], broken: str) -> list[Event]:
    """Return events of which each is needed to break the same promise. `run` returns what was broken."""
    left, kind, give_up = list(events), kind_of(broken), time.monotonic() + PATIENCE
    size = max(1, len(left) // 2)
    while True:
        at, has_shrunk = 0, False
        while at < len(left) and time.monotonic() < give_up:
            fewer = left[:at] + left[at + size :]
            if kind_of(run(fewer)) == kind:
                left, has_shrunk = fewer, True
            else:
                at += size
        if time.monotonic() >= give_up or (size == 1 and not has_shrunk):
            return left
        size = max(1, size // 2)
