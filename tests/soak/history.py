"""The content of the ledger: what was enqueued, what ran when, and the wall clock."""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from .tasks import KINDS, kind_of


class Try(NamedTuple):
    """A call that an enqueuer was about to make; `due` and `expires` by the site's clock."""

    moment: float
    due: float | None
    expires: float | None


class Ack(NamedTuple):
    """A call that was accepted."""

    moment: float
    key: str
    id: int


class Body:
    """A run of a task's function, from its start to its end, if it ended."""

    __slots__ = ("attempt", "end", "key", "start", "word")

    def __init__(self, key: str, attempt: int, start: float) -> None:
        self.key = key
        self.attempt = attempt
        self.start = start
        self.end = math.inf
        #: How it ended: "end", "raise", or "" if it was cut off.
        self.word = ""


class Clock:
    """The wall clock, by moments of the monotonic clock."""

    def __init__(self, base: float) -> None:
        self._base = base  # its time at moment 0, before it was set
        self._steps: list[tuple[float, float, float]] = [(-math.inf, -math.inf, 0.0)]

    def set(self, before: float, after: float, offset: float) -> None:
        """Note that the clock was set between two moments."""
        self._steps.append((before, after, offset))

    def span(self, since: float, until: float) -> tuple[float, float]:
        """Return the earliest and the latest time that it may have shown between two moments."""
        shown = list(self._shown(since, until))
        return min(shown) + self._base, max(shown) + self._base

    def _shown(self, since: float, until: float) -> Iterator[float]:
        first = max(0, bisect_right(self._steps, (since, math.inf, 0.0)) - 2)
        ends = [after for _before, after, _offset in self._steps[first + 1 :]] + [math.inf]
        for (before, _after, offset), end in zip(self._steps[first:], ends, strict=True):
            if before > until:
                return
            if end >= since:
                yield offset + max(before, since)
                yield offset + min(end, until)

    def highest(self, until: float) -> float:
        """Return the latest time that it ever showed."""
        return self.span(0.0, until)[1]


class History:
    """The ledger, as data."""

    def __init__(self, ledger: Path) -> None:
        self.tries: dict[str, Try] = {}
        self.refused: set[str] = set()
        self.acks: list[Ack] = []
        self.bodies: dict[int, list[Body]] = defaultdict(list)
        #: When each Foreman started and ended.
        self.foremen: list[list[float]] = []
        #: From when to when the Foreman was stopped.
        self.stops: list[list[float]] = []
        #: Between which moments the fork server was killed, together with the isolated tasks.
        self.forkless: list[list[float]] = []
        self.clock = Clock(0.0)
        self._step = 0.0
        with ledger.open() as lines:
            for line in lines:
                moment, word, *rest = line.split()
                getattr(self, f"_note_{word}")(float(moment), *rest)

    def _note_base(self, _moment: float, base: str) -> None:
        self.clock = Clock(float(base))

    def _note_clock(self, moment: float, when: str, offset: str) -> None:
        if when == "after":
            self.clock.set(self._step, moment, float(offset))
        self._step = moment

    def _note_try(self, moment: float, key: str, due: str, expires: str) -> None:
        self.tries.setdefault(key, Try(moment, *(None if x == "-" else float(x) for x in (due, expires))))

    def _note_refused(self, _moment: float, key: str) -> None:
        self.refused.add(key)

    def _note_ack(self, moment: float, key: str, number: str) -> None:
        self.acks.append(Ack(moment, key, int(number)))

    def _note_start(self, moment: float, key: str, number: str, attempt: str) -> None:
        self.bodies[int(number)].append(Body(key, int(attempt), moment))

    def _end(self, word: str, moment: float, number: str, attempt: str) -> None:
        for body in reversed(self.bodies[int(number)]):
            if body.attempt == int(attempt) and not body.word:
                body.end, body.word = moment, word
                return

    def _note_end(self, moment: float, _key: str, number: str, attempt: str) -> None:
        self._end("end", moment, number, attempt)

    def _note_raise(self, moment: float, _key: str, number: str, attempt: str) -> None:
        self._end("raise", moment, number, attempt)

    def _note_foreman(self, moment: float, what: str, _number: str) -> None:
        if what == "starts":
            self.foremen.append([moment, math.inf])
        else:
            self.foremen[-1][1] = moment

    def _note_stopped(self, moment: float) -> None:
        self.stops.append([moment, math.inf])

    def _note_continued(self, moment: float) -> None:
        self.stops[-1][1] = moment

    def _note_forkless(self, moment: float, word: str) -> None:
        if word == "from":
            self.forkless.append([moment, math.inf])
        else:
            self.forkless[-1][1] = moment

    def foreman_at(self, moment: float) -> int:
        """Return the number of the Foreman that ran at a moment."""
        return bisect_right(self.foremen, [moment, math.inf]) - 1

    def ends_of(self, body: Body) -> float:
        """Return when the Foreman of a run ended."""
        return self.foremen[self.foreman_at(body.start)][1]

    def until(self, body: Body) -> float:
        """Return when a run was over: at its end, or at the end of its process."""
        ends = [body.end, self.ends_of(body)]
        if KINDS[kind_of(body.key)].is_isolated:
            kills = (kill for kill in self.forkless if kill[1] >= body.start)
            ends += [max(body.start, begun) for begun, _done in islice(kills, 1)]
        return min(ends)
