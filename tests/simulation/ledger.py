"""What was promised: it follows each row from commit to commit, and says what should not have been."""

import sqlite3
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from snappea.queue.records import Claim, Outcome

#: How long a task may be held back although nothing holds it back, in seconds.
PATIENCE = 20.0
WAITING = ("ready", "scheduled")
KEPT = ("failed", "interrupted", "cancelled", "successful")
_ROWS = """
    SELECT id, status, claims, started_at, task_name, args, queue, priority, is_async, acks_late, gate, lane,
        lane_limit, lane_interval, coalesce(lane_burst, 1), lane_discards, run_after, expires_at, is_revoked
    FROM snappea_task"""


class Row(NamedTuple):
    """A row of snappea_task."""

    id: int
    status: str
    claims: int
    started_at: str | None
    task_name: str
    args: str
    queue: str
    priority: int
    is_async: int
    acks_late: int
    gate: int
    lane: str | None
    lane_limit: int | None
    lane_interval: float | None
    lane_burst: int
    lane_discards: int
    run_after: str | None
    expires_at: str | None
    is_revoked: int

    @property
    def fence(self) -> tuple[int, int, str | None]:
        return self.id, self.claims, self.started_at

    @property
    def is_claimable(self) -> bool:
        return self.status == "ready" and self.gate == 0

    def __str__(self) -> str:
        return f"#{self.id} {self.task_name.rpartition('.')[2]}"


@dataclass
class Run:
    """A task that has begun, by one of its claims."""

    outcome: Outcome | None = None
    is_noted: bool = False

    @property
    def ending(self) -> str:
        """How it ended, in a word; "" if it did not."""
        if self.outcome is None:
            return ""
        if not self.outcome.error:
            return "success"
        if self.outcome.is_revoked:
            return "revoked"
        return "failure" if self.outcome.retry_after is None else "retry"


@dataclass
class Actor:
    """What a process does at the moment, as far as the ledger needs it."""

    verb: str = ""
    #: The claims that its last query saw, by id.
    seen: dict[int, int] = field(default_factory=dict)


#: What each verb may do to a row: (from, to); None: no row.
ALLOWED: dict[str, set[tuple[str | None, str | None]]] = {
    "enqueue": {(None, "ready"), (None, "scheduled"), ("ready", "scheduled"), ("scheduled", "ready")},
    "cancel": {("ready", None), ("scheduled", None), (None, "ready")},
    "delete": {*((status, None) for status in KEPT), (None, "ready")},
    "requeue": {(status, to) for status in (*KEPT, "scheduled") for to in WAITING},
    "terminate": set(),
    "pause": set(),
    "resume": set(),
    "limits": set(),
}


class Ledger:
    """Looks at the tables after each commit. `tell`: called with what is wrong."""

    def __init__(self, path: str, wall: Callable[[], str], tell: Callable[[str], None]) -> None:
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)
        self._wall, self._tell = wall, tell
        self.rows: dict[int, Row] = {}
        self.runs: dict[tuple[int, int], Run] = {}
        self.history: deque[str] = deque(maxlen=300)
        self.counts: Counter[str] = Counter()
        #: The queues for which pause() has returned, and that no resume() has touched since.
        self.paused: set[str] = set()
        #: The limits that are being changed: until that is done, the old and the new ones may apply.
        self.changing = 0
        self._limits: dict[str, int] = {}
        self._old_limits: dict[str, int] = {}
        self._in_db_paused: set[str] = set()
        self._starts: defaultdict[str, list[datetime]] = defaultdict(list)
        self._tokens: defaultdict[str, set[int]] = defaultdict(set)
        self._ticks: set[str] = set()
        self._held: dict[int, tuple[float, int]] = {}
        self._claims_of: Counter[str] = Counter()
        self.is_recovering = False
        self.queue_limits: dict[str, int] = {}
        self.is_strict = False

    def note(self, text: str) -> None:
        """Add a line to the history."""
        self.history.append(f"{self._wall()[11:]} {text}")

    def pause(self, queue: str) -> None:
        """Note that pause() has returned."""
        self.paused |= {queue} & self._in_db_paused

    # the workers

    def begin(self, claim: Claim) -> None:
        """Check a task that begins."""
        self.counts["runs"] += 1
        row, key = self.rows.get(claim.id), (claim.id, claim.claims)
        self.note(f"worker: #{claim.id} begins, claim {claim.claims}")
        if row is None or row.status != "running" or row.fence != claim.fence:
            self._tell(f"#{claim.id} runs, but its row is {row and row.status} ({claim.fence})")
        elif row.queue in self.paused:
            self._tell(f"{row} begins although its queue {row.queue} is paused")
        elif (row.run_after or "") > self._wall():
            self._tell(f"{row} begins before {row.run_after}")
        if key in self.runs:
            self._tell(f"#{claim.id} begins twice by claim {claim.claims}")
        self.runs[key] = Run()

    def end(self, claim: Claim, outcome: Outcome) -> None:
        """Note how a task has ended."""
        run = self.runs[claim.id, claim.claims]
        run.outcome = outcome
        self.note(f"worker: #{claim.id} ends: {run.ending}")

    def is_logged(self, claim: Claim) -> None:
        """Note that the logbook knows."""
        self.runs[claim.id, claim.claims].is_noted = True

    # each commit

    def look(self, name: str, actor: Actor) -> None:
        """Compare the tables with those before a commit."""
        self.counts["commits"] += 1
        before, found = self.rows, map(Row._make, self._db.execute(_ROWS).fetchall())
        self.rows = after = {row.id: row for row in found}
        self._in_db_paused = {queue for (queue,) in self._db.execute("SELECT queue FROM snappea_pause")}
        self.paused &= self._in_db_paused
        limits = self._db.execute("SELECT lane, max_concurrency FROM snappea_limit").fetchall()
        if not self.changing:
            self._old_limits = self._limits
        self._limits = {lane: limit for lane, limit in limits if limit is not None}
        claimed = []
        for pk in before.keys() | after.keys():
            old, new = before.get(pk), after.get(pk)
            if old == new:
                continue
            if (old and old.status) != (new and new.status) or (old and new and old.claims != new.claims):
                said = f"{name}{f' ({actor.verb})' if actor.verb else ''}: {new or old}"
                self.note(f"{said}: {old.status if old else 'new'} -> {new.status if new else 'gone'}")
            if old is None and new is not None:
                self._check_new(new)
            if name != "foreman":
                self._check_other(actor, old, new)
            elif new and new.claims != (old.claims if old else 0):
                claimed.append(new)
                self._check_claim(old, new)
            else:
                self._check_foreman(old, new)
        if claimed:
            self._check_claims(claimed)

    def _check_new(self, new: Row) -> None:
        if new.task_name.endswith(".called_back"):
            self._tokens[new.args].add(new.id)
            if len(self._tokens[new.args]) > 1:
                self._tell(f"{new}: the callback {new.args} was enqueued twice")
        elif new.task_name.endswith(".ticking"):
            if new.run_after in self._ticks:
                self._tell(f"{new}: the tick of {new.run_after} was enqueued twice")
            self._ticks.add(new.run_after or "")

    def _check_other(self, actor: Actor, old: Row | None, new: Row | None) -> None:
        change = old and old.status, new and new.status
        if change[0] != change[1] and change not in ALLOWED[actor.verb]:
            self._tell(f"{new or old}: {actor.verb} made {change[0]} {change[1]}")
        is_of_kept = actor.verb in ("delete", "requeue") and old and old.status in KEPT
        if is_of_kept and old and change[0] != change[1] and actor.seen.get(old.id) != old.claims:
            self._tell(f"{old}: {actor.verb} hit claim {old.claims}, but was decided before it")

    def _check_foreman(self, old: Row | None, new: Row | None) -> None:
        if old is None or (new and old.status == new.status):
            return
        to = new.status if new else "gone"
        if old.status == "running":
            self._check_end(old, to, bool(new and new.is_revoked))
        elif to == "gone":
            is_over = old.expires_at is not None and old.expires_at <= self._wall()
            is_discarded = old.lane_discards and not old.claims and (old.run_after or "") <= self._wall()
            if not is_over and not is_discarded:
                self._tell(f"{old} is gone, and was {old.status}")
        elif (old.status, to) != ("scheduled", "ready"):
            self._tell(f"{old}: the Foreman made {old.status} {to}")
        elif (old.run_after or "") > self._wall():
            self._tell(f"{old} is ready before {old.run_after}")

    def _check_end(self, old: Row, to: str, is_revoked: bool) -> None:
        run = self.runs.get((old.id, old.claims))
        ending = run.ending if run else ""
        is_known = bool(run and (run.is_noted or not self.is_recovering))
        is_over = old.expires_at is not None and old.expires_at <= self._wall()
        may = {
            "gone": ending == "success" or is_over,
            "successful": ending == "success",
            "scheduled": ending == "retry",
            "failed": ending == "failure" or (ending == "retry" and old.expires_at is not None),
            "cancelled": is_revoked or ending == "revoked",
            "interrupted": run is not None and not (self.is_recovering and is_known and ending == "success"),
            "ready": run is None or ending == "retry" or bool(old.acks_late),
        }
        if not may[to]:
            how = ending or ("begun" if run else "never begun")
            self._tell(f"{old} ran ({how}), and became {to}")

    def _check_claim(self, old: Row | None, new: Row) -> None:
        if new.status != "running" or new.claims != (old.claims if old else 0) + 1:
            self._tell(f"{new} was claimed, and is {new.status}, claims {new.claims}")
        if old and old.status == "running":
            self._check_end(old, "ready", bool(old.is_revoked))
        elif old and old.status not in WAITING:
            self._tell(f"{new} was claimed, but was {old.status}")
        if new.queue in self._in_db_paused:
            self._tell(f"{new} was claimed from the paused queue {new.queue}")
        if (new.run_after or "") > self._wall():
            self._tell(f"{new} was claimed before {new.run_after}")

    def limit_of(self, row: Row) -> int | None:
        """Return how many of a group may run: while that is being changed, the higher number."""
        found = []
        for limits in (self._limits, self._old_limits) if self.changing else (self._limits,):
            limit = limits.get(row.lane or "", limits.get(row.task_name, row.lane_limit))
            if limit is None:
                return None
            found.append(limit)
        return max(found)

    def running_in(self, lane: str | None) -> int:
        """Return how many of a group run."""
        return sum(row.lane == lane and row.status == "running" for row in self.rows.values())

    def _check_claims(self, claimed: list[Row]) -> None:
        for new in claimed:
            self._claims_of[new.lane or new.queue] += 1
            limit = None if new.lane is None else self.limit_of(new)
            if limit is not None and self.running_in(new.lane) > limit:
                self._tell(f"{new}: more than {limit} of the group {new.lane} run")
            if new.lane and new.lane_interval and new.started_at:
                self._check_rate(new, new.lane, new.lane_interval, datetime.fromisoformat(new.started_at))
        for queue, most in self.queue_limits.items():
            running = sum(row.queue == queue and row.status == "running" for row in self.rows.values())
            if running > most and any(row.queue == queue for row in claimed):
                self._tell(f"{running} tasks of the queue {queue} run")
        for new in claimed:
            for row in self.rows.values() if not new.is_async else ():
                if row.priority > new.priority and self._comes_first(row, new):
                    self._tell(f"{row} waits, and {new} with priority {new.priority} was claimed")

    def _check_rate(self, new: Row, lane: str, interval: float, moment: datetime) -> None:
        starts = self._starts[lane] = [*self._starts[lane][-50:], moment]
        for count, first in enumerate(reversed(starts), 1):
            seconds = (moment - first).total_seconds()
            if count > new.lane_burst + seconds / interval + 1.001:
                self._tell(f"{new}: {count} starts of {lane} in {seconds:.3f} s")

    def _comes_first(self, row: Row, new: Row) -> bool:
        """Return whether a more urgent task should have been claimed."""
        is_open = row.is_claimable and not row.is_async and row.queue not in self._in_db_paused
        return (
            is_open and row.queue not in self.queue_limits and (not self.is_strict or row.queue == new.queue)
        )

    # at rest

    def inspect(self, here: float, free: int, free_on_loop: int) -> None:
        """Look for tasks that nothing holds back, and that are not claimed. `free`: workers."""
        held = {}
        for row in self.rows.values():
            if row.status == "ready" and (free_on_loop if row.is_async else free) > 0 and self._may_run(row):
                claims = self._claims_of[row.lane or row.queue]
                since, before = self._held.get(row.id, (here, claims))
                held[row.id] = (since, before) if before == claims else (here, claims)
                if here - held[row.id][0] > PATIENCE:
                    self._tell(
                        f"{row} (gate {row.gate}) is ready for {PATIENCE:g} s, and nothing holds it back"
                    )
            elif row.status == "scheduled" and (row.run_after or "") < self._wall():
                since, _ = held[row.id] = self._held.get(row.id, (here, 0))
                if here - since > PATIENCE:
                    self._tell(f"{row} is due since {row.run_after}")
        self._held = held

    def _may_run(self, row: Row) -> bool:
        if row.queue in self._in_db_paused or self.changing:
            return False
        if (most := self.queue_limits.get(row.queue)) is not None:
            in_queue = [
                one.id for one in self.rows.values() if (one.queue, one.status) == (row.queue, "running")
            ]
            if len(in_queue) >= most:
                return False
        if row.lane is None:
            return True
        limit = self.limit_of(row)
        taken = [
            one
            for one in self.rows.values()
            if one.lane == row.lane and (one.status == "running" or (one.is_claimable and one.id != row.id))
        ]
        return limit is None or len(taken) < limit

    def forget(self) -> None:
        """Forget how long tasks are held back: no Foreman is at work."""
        self._held = {}

    def unfinished(self, since: str) -> list[Row]:
        """Return the tasks that wait or run, and were enqueued before a time."""
        asked = "SELECT id FROM snappea_task WHERE enqueued_at < ?"
        found = [self.rows[pk] for (pk,) in self._db.execute(asked, (since,)).fetchall() if pk in self.rows]
        return [row for row in found if row.status not in KEPT]

    def check_running(self, fences: set[tuple[int, int, str | None]]) -> None:
        """Compare the rows that run with the Foreman's claims."""
        rows = {row.fence for row in self.rows.values() if row.status == "running"}
        if rows != fences:
            self._tell(f"the Foreman counts {sorted(fences - rows)}, and rows run: {sorted(rows - fences)}")

    def check_at_end(self, tokens: list[str]) -> None:
        """Check the file, and the callbacks of batches that have ended."""
        (verdict,) = self._db.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            self._tell(f"integrity_check: {verdict}")
        for token in tokens:
            if not self._tokens[f'["{token}"]']:
                self._tell(f"the callback {token} was never enqueued")

    def close(self) -> None:
        """Close its connection."""
        self._db.close()
