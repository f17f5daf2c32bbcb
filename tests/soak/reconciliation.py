"""The ledger against the table: is each guarantee kept? At rest, when nothing waits or runs."""

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from .ground import Ground
from .history import Ack, Body, History
from .tasks import KINDS, PACE, RETRY_DELAY, TICKS, kind_of

#: The precision of moments, in seconds: a note is written a moment before or after the event.
GRAIN = 0.02
#: How often a task with acks_late is started automatically: MAX_INTERRUPTIONS.
MOST_STARTS = 3
#: The window in which starts of a task with a rate are counted, and how early it is claimed, in seconds.
WINDOW, AHEAD = 3.0, 1.0


#: Why a task that never raises may have failed: its process was killed, or a call of it was refused.
NOT_ITS_FAULT = ("TaskKilled", "The Foreman died", "EnqueueError")


class Row(NamedTuple):
    """The row of a task that is still in the table."""

    id: int
    key: str
    status: str
    attempts: int
    error: str

    @classmethod
    def of(cls, task_id: int, args: str, status: str, attempts: int, error: str, name: str) -> "Row":
        """Return a row of the table; ticks have a name instead of a key."""
        key = (json.loads(args) or [name.rpartition(".")[2]])[0]
        return cls(task_id, key, status, attempts, error)


class Reconciliation:
    """Compares a history with the rows that are left. `until`: the end, by the monotonic clock."""

    def __init__(self, history: History, rows: Iterable[Row], until: float, ground: Ground) -> None:
        self.history = history
        self.rows = {row.id: row for row in rows}
        self.until = until
        self.ground = ground

    def violations(self) -> Iterator[str]:
        """Yield the broken promises."""
        yield from self.nothing_is_lost()
        yield from self.nothing_is_imagined()
        yield from self.rows_explain_themselves()
        yield from self.nothing_starts_twice()
        yield from self.nothing_is_early()
        yield from self.nothing_is_stale()
        yield from self.ticks_come_once()
        yield from self.limits_are_held()
        yield from self.the_pace_is_held()
        yield from self.identical_calls_are_served()
        yield from self.nobody_alive_is_buried()

    # delivery

    def nothing_is_lost(self) -> Iterator[str]:
        """I1, I3: an accepted task ran to its end, or its row is there, or it expired."""
        for ack in self.history.acks:
            if ack.id not in self.rows and not self._is_finished(ack.id) and not self._has_expired(ack):
                yield f"lost: {ack.key} #{ack.id}, {self._bodies_in_words(ack.id)}"
        for task_id, bodies in self.history.bodies.items():
            if task_id not in self.rows and not self._is_finished(task_id):
                yield f"begun, not finished, and not kept: {bodies[-1].key} #{task_id}"

    def nothing_is_imagined(self) -> Iterator[str]:
        """I10, I12: what ran was enqueued, once; a refused call left nothing."""
        ids: dict[str, set[int]] = defaultdict(set)
        for task_id, bodies in self.history.bodies.items():
            ids[bodies[0].key].add(task_id)
        for row in self.rows.values():
            ids[row.key].add(row.id)
        for ack in self.history.acks:
            ids[ack.key].add(ack.id)
        for key, numbers in ids.items():
            if kind_of(key) in TICKS:
                continue
            if key not in self.history.tries:
                yield f"nobody enqueued {key} {numbers}"
            if KINDS[kind_of(key)].alike:
                continue
            if key in self.history.refused:
                yield f"refused, and there all the same: {key} {numbers}"
            if len(numbers) > 1:
                yield f"one call, several rows: {key} {numbers}"

    def rows_explain_themselves(self) -> Iterator[str]:
        """I6 to I9, I16: at rest nothing waits or runs, and each row has the right state."""
        never_began, excuses = [], (*NOT_ITS_FAULT, *self.ground.excuses)
        for row in self.rows.values():
            kind, bodies = KINDS[kind_of(row.key)], self.history.bodies.get(row.id, [])
            has_ended = any(body.word == "end" for body in bodies)
            if row.status == "failed":
                is_its_fault = not any(words in row.error for words in excuses)
                if has_ended or (is_its_fault and not kind.may_fail):
                    yield f"failed for no reason: {row}, {self._bodies_in_words(row.id)}"
            elif row.status == "interrupted":
                if len(bodies) < row.attempts:
                    never_began.append(row)
                elif bodies[-1].word == "end" and not self._could_be_missed(bodies[-1]):
                    yield f"interrupted, though it had ended: {row}, {self._bodies_in_words(row.id)}"
            elif row.status != "successful" or not has_ended:
                yield f"not at rest: {row}, {self._bodies_in_words(row.id)}"
        # between the note in the logbook and the first line of the task lies a moment, a fork at
        # most, in which a kill is misjudged; that must be as rare as the moment is short
        deaths = len(self.history.foremen) + sum(self.history.burials.values())
        if len(never_began) > max(2, deaths * self.ground.unbegun_per_death):
            yield f"interrupted, though they never began: {never_began}"

    def _could_be_missed(self, body: Body) -> bool:
        """Tell whether a run ended just before its Foreman ended or was away, or meanwhile."""
        return any(body.end > loss.awake_until - self.history.unwritten for loss in self.history.losses(body))

    def nothing_starts_twice(self) -> Iterator[str]:
        """I2, I4: a second start is a retry, or follows the end of the Foreman with acks_late."""
        for task_id, bodies in self.history.bodies.items():
            kind = KINDS[kind_of(bodies[0].key)]
            for before, after in pairwise(bodies):
                is_retry = before.word == "raise" and after.attempt > before.attempt
                is_over = before.word != "end" or self._could_be_missed(before)
                is_repeated = kind.acks_late and is_over and self.history.lost_at(before) < after.start
                if not is_retry and not is_repeated:
                    yield f"started twice: {after.key} #{task_id}, {self._bodies_in_words(task_id)}"
            if kind.acks_late and len(bodies) > MOST_STARTS:
                yield f"started too often: {bodies[0].key} #{task_id}, {self._bodies_in_words(task_id)}"

    # time

    def nothing_is_early(self) -> Iterator[str]:
        """I5: not before it is due by the wall clock as it was set; retries included."""
        for task_id, bodies in self.history.bodies.items():
            call = self.history.tries.get(bodies[0].key)
            if call and call.due is not None:
                _least, most = self.history.clock.span(call.moment, bodies[0].start)
                if most < call.due - GRAIN:
                    yield f"{call.due - most:.3f} s early: {bodies[0].key} #{task_id}"
            for before, after in pairwise(bodies):
                is_kept = self.history.lost_at(before) > after.start
                if before.word == "raise" and is_kept:  # otherwise a restart may make it earlier
                    least, most = self.history.clock.span(before.end, after.start)
                    if most - least < RETRY_DELAY - GRAIN:
                        yield f"tried again after {most - least:.3f} s: {after.key} #{task_id}"

    def nothing_is_stale(self) -> Iterator[str]:
        """An expired task is not started."""
        for task_id, bodies in self.history.bodies.items():
            call = self.history.tries.get(bodies[0].key)
            if call and call.expires is not None:
                since = max(call.moment, bodies[0].start - self.ground.lateness)
                if self.history.clock.span(since, bodies[0].start)[0] > call.expires + 1:
                    yield f"started though it had expired: {bodies[0].key} #{task_id}"

    def ticks_come_once(self) -> Iterator[str]:
        """No tick is enqueued twice."""
        seen: dict[str, int] = {}
        for task_id, bodies in self.history.bodies.items():
            if kind_of(bodies[0].key) in TICKS and seen.setdefault(bodies[0].key, task_id) != task_id:
                yield f"twice: {bodies[0].key} #{task_id}"

    # limits

    def limits_are_held(self) -> Iterator[str]:
        """I11, max_concurrency, unique="running": never more at once than allowed."""
        in_threads: dict[int, list[Body]] = defaultdict(list)
        lanes: dict[str, list[Body]] = defaultdict(list)
        for bodies in self.history.bodies.values():
            kind = KINDS[kind_of(bodies[0].key)]
            for body in bodies if kind.uses_worker else ():
                in_threads[body.foreman].append(body)
            if kind.at_once:
                lanes[bodies[0].key if kind.alike else kind_of(bodies[0].key)] += bodies
        for lane, bodies in lanes.items():
            limit = KINDS[kind_of(lane)].at_once
            if limit and (most := self._most_at_once(bodies)) > limit:
                yield f"{most} of {lane} at once"
        for foreman, bodies in in_threads.items():
            if (most := self._most_at_once(bodies)) > self.ground.workers:
                yield f"{most} bodies at once on {self.ground.workers} workers of Foreman {foreman}"

    def _most_at_once(self, bodies: Iterable[Body]) -> int:
        changes = [(body.start, 1) for body in bodies] + [(self.history.until(body), -1) for body in bodies]
        most = now = 0
        for _moment, change in sorted(changes):
            most = max(most, now := now + change)
        return most

    def the_pace_is_held(self) -> Iterator[str]:
        """rate_limit: while no process is stopped, and on SQLite, within one Foreman."""
        bodies = itertools.chain.from_iterable(self.history.bodies.values())
        paced = sorted((b for b in bodies if kind_of(b.key) == "paced"), key=lambda body: body.start)
        allowed = math.ceil((WINDOW + AHEAD) * PACE) + 1
        for first, last in zip(paced, paced[allowed:], strict=False):
            is_judged = self.ground.shares_rates or first.foreman == last.foreman
            if last.start - first.start > WINDOW or not is_judged:
                continue
            absences = itertools.chain.from_iterable(self.history.absences.values())
            if not any(b - AHEAD < last.start and e + AHEAD > first.start for b, e in absences):
                yield f"{allowed + 1} paced starts within {last.start - first.start:.2f} s"

    def identical_calls_are_served(self) -> Iterator[str]:
        """unique=True: the task that `delay()` returned was still waiting, so it starts later, or is kept."""
        for ack in self.history.acks:
            if kind_of(ack.key) != "unique_waiting" or ack.id in self.rows:
                continue
            # the call began before it was acknowledged: it waited for the write lock
            since = ack.moment - self.ground.lateness
            if not any(body.start > since for body in self.history.bodies.get(ack.id, ())):
                yield f"enqueued after it had run: {ack.key} #{ack.id}"

    def nobody_alive_is_buried(self) -> Iterator[str]:
        """I19: only a Foreman that was away for long is taken for dead."""
        for foreman, count in self.history.burials.items():
            if count > (away := len(self.history.long_absences_of(foreman))):
                yield f"Foreman {foreman} was taken for dead {count} times, and away {away} times"

    # in words

    def _is_finished(self, task_id: int) -> bool:
        return any(body.word == "end" for body in self.history.bodies.get(task_id, ()))

    def _has_expired(self, ack: Ack) -> bool:
        expires = self.history.tries[ack.key].expires
        return expires is not None and self.history.clock.span(ack.moment, self.until)[1] > expires

    def _bodies_in_words(self, task_id: int) -> str:
        bodies = self.history.bodies.get(task_id, [])
        said = [
            f"{b.attempt}. at {b.start:.3f} to {b.end:.3f} {b.word or 'cut off'} on {b.foreman}"
            for b in bodies
        ]
        return "; ".join(said) or "never started"

    def summary(self) -> Iterator[str]:
        """Yield lines with the counts."""
        accepted = {ack.id for ack in self.history.acks}
        bodies = self.history.bodies
        kept = Counter(row.status for row in self.rows.values())
        again = sum(b.word != "raise" for bs in bodies.values() for b in bs[:-1])
        ticks = sum(kind_of(bs[0].key) in TICKS for bs in bodies.values())
        gone = sum(i not in self.rows and not self._is_finished(i) for i in accepted)
        refused = len(self.history.refused)
        yield f"accepted {len(accepted):,} tasks; refused {refused:,} calls; {ticks:,} ticks"
        yield f"bodies started {sum(map(len, bodies.values())):,}, of which again after a crash {again:,}"
        yield f"ran to their end {sum(map(self._is_finished, bodies)):,}; expired {gone:,}"
        yield f"kept: {', '.join(f'{count:,} {status}' for status, count in sorted(kept.items())) or 'none'}"
