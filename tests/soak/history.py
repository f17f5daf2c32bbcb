"""The content of the ledger: what was enqueued, what ran when, and the wall clock."""

import math
from bisect import bisect_right
from collections import Counter, defaultdict
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

    __slots__ = ("attempt", "end", "foreman", "key", "start", "word")

    def __init__(self, key: str, attempt: int, start: float, foreman: int) -> None:
        self.key = key
        self.attempt = attempt
        self.start = start
        #: The number of its Foreman.
        self.foreman = foreman
        self.end = math.inf
        #: How it ended: "end", "raise", or "" if it was cut off.
        self.word = ""


class Loss(NamedTuple):
    """A run that others may take for interrupted: its result could be written before `awake_until`."""

    awake_until: float
    #: The moment from which the task may be repeated.
    moment: float


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
    """The ledger, as data.

    `dead_after`: how long a Foreman is away until others may take it for dead. `unwritten`: how long an
    outcome may wait to be written, in seconds.
    """

    def __init__(self, ledger: Path, dead_after: float = math.inf, unwritten: float = 0.0) -> None:
        self._dead_after = dead_after
        self.unwritten = unwritten
        self.tries: dict[str, Try] = {}
        self.refused: set[str] = set()
        self.acks: list[Ack] = []
        self.bodies: dict[int, list[Body]] = defaultdict(list)
        #: When each Foreman started and ended.
        self.foremen: dict[int, list[float]] = {}
        #: From when to when each Foreman could not work or write: it was stopped, or cut off. 0 is for all.
        self.absences: dict[int, list[list[float]]] = defaultdict(list)
        #: How often each Foreman was taken for dead.
        self.burials: Counter[int] = Counter()
        #: Between which moments the fork server of a Foreman was killed, together with the isolated tasks.
        self.forkless: dict[int, list[list[float]]] = defaultdict(list)
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

    def _note_unsure(self, _moment: float, key: str) -> None:
        """The connection broke during the commit, so the call may be in the table."""

    def _note_ack(self, moment: float, key: str, number: str) -> None:
        self.acks.append(Ack(moment, key, int(number)))

    def _note_start(self, moment: float, key: str, number: str, attempt: str, foreman: str) -> None:
        self.bodies[int(number)].append(Body(key, int(attempt), moment, int(foreman)))

    def _end(self, word: str, moment: float, number: str, attempt: str) -> None:
        for body in reversed(self.bodies[int(number)]):
            if body.attempt == int(attempt) and not body.word:
                body.end, body.word = moment, word
                return

    def _note_end(self, moment: float, _key: str, number: str, attempt: str) -> None:
        self._end("end", moment, number, attempt)

    def _note_raise(self, moment: float, _key: str, number: str, attempt: str) -> None:
        self._end("raise", moment, number, attempt)

    def _note_foreman(self, moment: float, what: str, number: str) -> None:
        if what == "starts":
            self.foremen[int(number)] = [moment, math.inf]
        else:
            self.foremen[int(number)][1] = moment

    def _note_away(self, moment: float, number: str) -> None:
        self.absences[int(number)].append([moment, math.inf])

    def _note_back(self, moment: float, number: str) -> None:
        self.absences[int(number)][-1][1] = moment

    def _note_buried(self, _moment: float, number: str) -> None:
        self.burials[int(number)] += 1

    def _note_forkless(self, moment: float, word: str, number: str) -> None:
        if word == "from":
            self.forkless[int(number)].append([moment, math.inf])
        else:
            self.forkless[int(number)][-1][1] = moment

    def absences_of(self, foreman: int) -> list[list[float]]:
        """Return from when to when a Foreman could not work or write."""
        return [*self.absences[foreman], *self.absences[0]]

    def long_absences_of(self, foreman: int) -> list[list[float]]:
        """Return those after which others may take it for dead: not those that all Foremen shared."""
        return [span for span in self.absences[foreman] if span[1] - span[0] >= self._dead_after]

    def losses(self, body: Body) -> Iterator[Loss]:
        """Yield when a run may have been taken for interrupted: its Foreman ended, or was away."""
        end = self.foremen[body.foreman][1]
        absences = self.absences_of(body.foreman)
        began = (begin for begin, back in absences if begin < end <= back + self.unwritten)
        yield Loss(min([end, *began]), end)
        for begin, back in self.long_absences_of(body.foreman):
            # what it claimed before it was away starts when it is back
            if begin - self.unwritten < body.end and body.start < back + self.unwritten:
                yield Loss(begin, max(body.start, begin + self._dead_after))

    def lost_at(self, body: Body) -> float:
        """Return the first moment when others may have repeated a run."""
        return min(loss.moment for loss in self.losses(body))

    def until(self, body: Body) -> float:
        """Return when a run was over for the limits: at its end, that of its process, or when it was lost."""
        ends = [body.end, self.lost_at(body)]
        if KINDS[kind_of(body.key)].is_isolated:
            kills = (kill for kill in self.forkless[body.foreman] if kill[1] >= body.start)
            ends += [max(body.start, begun) for begun, _done in islice(kills, 1)]
        return min(ends)
