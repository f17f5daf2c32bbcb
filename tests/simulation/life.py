"""A life: some hours with several Foremen, by a seed and a list of events."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from random import Random
from typing import Any
from unittest.mock import patch

from django.db import DatabaseError, connections

from snappea import limits
from snappea.errors import CannotStart, PauseUnconfirmed, SnappeaError
from snappea.foreman import loop
from snappea.foreman.loop import Foreman
from snappea.foreman.shutdown import Shutdown
from snappea.queue import clock as wall_clock
from snappea.queue import database as queue_database
from snappea.queue import operations
from snappea.queue.records import Claim, Outcome

from . import clients, database, tasks, timeline
from .events import Event
from .host import SimulatedHost
from .ledger import Actor, Ledger
from .pool import SimulatedPool
from .timeline import Clock, Killed, Process, Timeline

#: How often a commit of the Foreman fails, how often while the disk has a bad time, and how long that is.
FAULTS, MOST_FAULTS, FAULTY_FOR = 0.01, 0.7, (0.0, 0.5, 4.0)
#: How often a wakeup is lost.
LOST = 0.02
#: How often to look for tasks that are forgotten, in seconds.
INSPECT_EVERY = 5.0
#: How long the last tasks may take, in seconds.
LAST_REST = 3600.0
FOREVER = 1e9
QUEUE_LIMITS = {"mail": 2}


class Life:
    """What happens in a database of its own until all is quiet."""

    def __init__(self, seed: str, events: Sequence[Event], path: str) -> None:
        self.seed, self._events = seed, events
        self.timeline = Timeline(Process("foreman", seed))
        self.writer: database.Connection | None = None
        self.ledger = Ledger(path, wall_clock_of(self.timeline), self.break_off)
        self.ledger.queue_limits = QUEUE_LIMITS
        #: What was broken first.
        self.broken = ""
        self.tokens: list[str] = []
        self._actors: dict[str, Actor] = {}
        self._random = Random(f"{seed}/life")
        self._at_work, self._faulty_until = 0, 0.0
        self._operator, self._operator_is_idle = Process("operator", seed), False
        self._is_over = False
        self.foreman: Foreman | None = None
        chance = Random(f"{seed}/settings")
        self._settings: dict[str, Any] = {
            "NUM_WORKERS": chance.randint(1, 4),
            "GRACEFUL_TIMEOUT": chance.choice((0, 2, 10)),
        }
        self._settings |= {"WORKAHOLIC": chance.random() < 0.2, "ASYNC_CONCURRENCY": 2}
        self._settings |= {"MAX_TASKS": chance.choice((None, None, 15))}
        self._strict = self.ledger.is_strict = chance.random() < 0.1

    def break_off(self, why: str) -> None:
        """Note a broken promise, and end."""
        if not self.broken:
            self.broken = why
            self.ledger.note(f"BROKEN: {why}")
            self._end()

    def _end(self) -> None:
        self._is_over = True
        self.timeline.kill(self.timeline.main)

    # what connections and workers ask and tell: see `database.World` and `pool.Watcher`

    def actor(self, process: Process) -> Actor:
        """Return what a process does."""
        return self._actors.setdefault(process.name, Actor())

    def committed(self, by: Process) -> None:
        self.ledger.look(by.name, self.actor(by))

    def fault_of_commit(self, by: Process) -> str:
        here, dice = self.timeline.now, by.random.random()
        if by.name != "foreman" or dice > (MOST_FAULTS if here < self._faulty_until else FAULTS):
            return ""
        if here >= self._faulty_until:
            self._faulty_until = here + by.random.choice(FAULTY_FOR)
        fault = by.random.choice(("before", "after"))
        self.ledger.note(f"foreman: the commit fails {fault} it is done")
        if self._operator_is_idle:
            self.timeline.wake(self._operator, by.random.random() * 0.3)
        return fault

    def has_read(self, by: Process) -> None:
        self.actor(by).seen = {row.id: row.claims for row in self.ledger.rows.values()}

    def opened(self) -> None:
        self.ledger.is_recovering = False

    def note_begin(self, claim: Claim, cell: int) -> None:
        self.ledger.begin(claim)
        pool, logbook = self._pool(), self.foreman.in_flight.logbook if self.foreman else None
        words = logbook._words[cell * 4 : cell * 4 + 4].tolist() if logbook else []
        if words and (words[3], words[0]) != (claim.id, claim.claims):
            self.break_off(f"#{claim.id} runs with cell {cell}, in which is #{words[3]}")
        running = [one.claim for one in pool.bodies if one.claim.is_async == claim.is_async and one._began]
        most = 2 if claim.is_async else pool.size + len(pool.stuck)
        if len(running) > most:
            self.break_off(f"{len(running)} tasks run at once, not {most}")

    def note_end(self, claim: Claim, outcome: Outcome) -> None:
        self.ledger.end(claim, outcome)

    def note_noted(self, claim: Claim) -> None:
        self.ledger.is_logged(claim)

    def ring(self, _file: object) -> None:
        """Stand in for the touch of the wakeup file."""
        bell = getattr(self.foreman, "bell", None)
        if bell is not None and self.timeline.current.random.random() >= LOST:
            bell.ring()

    def _pool(self) -> Any:
        return getattr(self.foreman, "pool", None)

    # the course of events

    def run(self) -> None:
        """Let it all happen, until all is quiet or a promise is broken."""
        line = self.timeline
        by_client: dict[str, list[Event]] = {}
        for event in self._events:
            if event.who == "foreman":
                line.after(event.at, lambda event=event: self._strike(event.verb))  # type: ignore[misc]
            else:
                by_client.setdefault(event.who, []).append(event)
        for name, events in by_client.items():
            self._at_work += 1
            client = Process(name, self.seed)
            line.start(client, lambda events=events, client=client: self._act(client, events))  # type: ignore[misc]
        line.start(self._operator, self._operate)
        line.after(INSPECT_EVERY, self._inspect)
        if not by_client:
            self._rest()
        while not self._is_over:
            self._live()
        line.finish()
        self.ledger.close()

    def _live(self) -> None:
        """Be one Foreman after the other."""
        line, ledger = self.timeline, self.ledger
        try:
            ledger.is_recovering = True
            served = ("urgent", "default", "mail") if self._strict else ()
            self.foreman = Foreman(served, self._strict, **self._settings)
            ledger.note("foreman: starts")
            code = self.foreman.run()
            ledger.note(f"foreman: ends, exit code {code}")
        except Killed:
            ledger.note("foreman: is killed")
        except CannotStart as error:
            ledger.note(f"foreman: {error}")
        finally:
            line.main.is_killed = False
            self._bury()
        if not self._is_over:
            try:
                line.pause(self._random.choice((0.001, 0.5, 5, 30)))
            except Killed:
                line.main.is_killed = False

    def _bury(self) -> None:
        if self.foreman:
            if pool := self._pool():
                pool.bury()
            host: Any = self.foreman.host
            self.foreman = None
            host.bury()
        connections["snappea"].close()
        self.ledger.forget()

    def _strike(self, verb: str) -> None:
        """Kill or stop the Foreman."""
        if not self.foreman or not self._pool() or self._is_over:
            return
        self.ledger.note(f"foreman: {verb}")
        if verb == "kill":
            self.timeline.kill(self.timeline.main)
        else:
            self.foreman.shutdown.signals += 1 + (verb == "hurry")
            self.foreman.bell.nudge()

    def _act(self, me: Process, events: Sequence[Event]) -> None:
        """Be a client."""
        try:
            for event in events:
                self.timeline.pause(max(0.0, 1000.0 + event.at - self.timeline.now))
                if self._is_over:
                    break
                self._do(me, event)
        finally:
            connections["snappea"].close()
            self._at_work -= 1
            if not self._at_work and not self._is_over:
                self._rest()

    def _operate(self) -> None:
        """Be an operator: requeue tasks as soon as something is wrong."""
        try:
            while True:
                self._operator_is_idle = True
                self.timeline.pause(FOREVER)
                self._operator_is_idle = False
                event = Event(
                    self.timeline.now, "operator", "requeue", self._operator.random.randrange(10**6)
                )
                self._do(self._operator, event)
        finally:
            connections["snappea"].close()

    def _do(self, me: Process, event: Event) -> None:
        actor, chance = self.actor(me), Random(event.seed)
        actor.verb = {"batch": "enqueue", "unlimit": "limits"}.get(event.verb, event.verb)
        wrappers = connections["snappea"].execute_wrappers
        if database.give_way not in wrappers:
            wrappers.append(database.give_way)
        self.ledger.note(f"{me.name}: {event.verb} ...")
        try:
            if event.verb == "batch":
                token = f"{event.seed}-{event.at}"
                clients.enqueue_batch(chance, token)
                self.tokens.append(f"{token}-complete")
            elif event.verb == "pause":
                operations.pause(queue := chance.choice(tasks.QUEUES))
                self.ledger.pause(queue)
            elif event.verb == "resume":
                operations.resume(chance.choice(tasks.QUEUES))
            else:
                self.ledger.changing += actor.verb == "limits"
                try:
                    clients.ACTS[event.verb](chance)
                finally:
                    self.ledger.changing -= actor.verb == "limits"
        except (SnappeaError, DatabaseError, PauseUnconfirmed) as error:
            if "locked" not in str(error) and not isinstance(error, PauseUnconfirmed):
                self.break_off(f"{me.name}: {event.verb} raised {error!r}")
        self.ledger.note(f"{me.name}: {event.verb} done")

    def _rest(self) -> None:
        """Wait until nothing is left of what was begun, and end."""
        line = self.timeline
        self._rested_since, self._rest_until = wall_clock_of(line)(), line.now + LAST_REST
        cleaner = Process("cleaner", self.seed)
        line.start(cleaner, lambda: self._clean(cleaner))

    def _clean(self, me: Process) -> None:
        """Lift what holds tasks back, and look whether all is done."""
        actor = self.actor(me)
        actor.verb = "resume"
        for queue in tasks.QUEUES:
            operations.resume(queue)
        actor.verb = "limits"
        self.ledger.changing += 1
        for kind in tasks.LIMITED:
            for key in (None, *clients.KEYS) if kind.options.concurrency_key else (None,):
                limits.reset(kind, key=key)
        self.ledger.changing -= 1
        while not self._is_over:
            self.timeline.pause(30.0)
            left = self.ledger.unfinished(self._rested_since)
            if not left and not self._is_over and self.foreman and self._pool():
                self.ledger.check_at_end(self.tokens)
                if not self._is_over:
                    self._end()
            elif self.timeline.now > self._rest_until:
                self.break_off(f"it never rests: {', '.join(map(str, left[:5]))}")
        connections["snappea"].close()

    def _inspect(self) -> None:
        """Look for what is forgotten, and compare the Foreman's books with the rows."""
        foreman, pool = self.foreman, self._pool()
        if self._is_over:
            return
        self.timeline.after(INSPECT_EVERY, self._inspect)
        if not foreman or not pool or foreman.shutdown.stop_by is not None or foreman.shutdown.signals:
            self.ledger.forget()
            return
        flying = foreman.in_flight
        on_loop = len(flying.on_loop)
        free = pool.size + len(pool.stuck) - (flying.count_running() - on_loop)
        self.ledger.inspect(self.timeline.now, free, 2 - on_loop)

    def asleep(self) -> None:
        """Compare the books of a Foreman that is about to sleep with the rows."""
        if not self.foreman or self.writer is not None:
            return
        flying = self.foreman.in_flight
        if flying._is_uncertain or flying.unbegun or flying.entered:
            return
        self.ledger.check_running({claim.fence for claim in flying.claims.values()})
        words = flying.logbook._words
        for cell, claim in flying.claims.items():
            if (words[cell * 4 + 3], words[cell * 4]) != (claim.id, claim.claims):
                self.break_off(f"in cell {cell} of #{claim.id} is #{words[cell * 4 + 3]}")
        if len(flying.claims) + len(flying.logbook.free) != self.foreman.host._cells():
            self.break_off(f"{len(flying.claims)} claims, and {len(flying.logbook.free)} free cells")


def wall_clock_of(line: Timeline) -> Any:
    """Return a function that returns the time as the queue's database has it."""
    return lambda: wall_clock.now()


@contextmanager
def simulated(life: Life) -> Iterator[None]:
    """Put a life's parts in the place of the real ones."""
    timeline.install(Clock(life.timeline))
    database.use(life)
    with (
        patch.object(SimulatedHost, "owner", life, create=True),
        patch.object(SimulatedPool, "watcher", life, create=True),
        patch.object(queue_database, "ring", life.ring),
        patch.object(loop, "SqliteHost", SimulatedHost),
        patch.object(loop, "WorkerPool", SimulatedPool),
        patch.object(Shutdown, "count_signals", lambda *_: nullcontext()),
        patch.object(Shutdown, "hand_on_signals"),
    ):
        try:
            yield
        finally:
            database.use(None)
