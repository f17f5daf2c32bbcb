"""The Foreman: claims, starts and settles tasks. One process, one thread, one loop.

A round: collect the outcomes; in one transaction write them, promote what is due, claim as many as there is
room for; start what was claimed; sleep until a wakeup, an outcome, a deadline or a signal.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from logging import ERROR, INFO, WARNING
from typing import Any

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import HOOKS, current, hook
from ..errors import CannotStart
from ..log import say, say_seldom
from ..queue import store
from ..queue.clock import now, seconds_until
from ..queue.database import ADAPTERS, FAULTS, RawConnection, adapter, connect, raw, transact
from ..queue.operations import CONFIRM_EVERY
from ..queue.quarantine import Quarantine, quarantined
from ..queue.records import Claim, Expired, Outcome, Peek
from ..tasks import frameworks
from ..tasks.registry import registry
from ..workers.processes.fork_server import ForkServer
from ..workers.threads import WorkerPool
from .admission import Admission
from .host import SqliteHost
from .in_flight import InFlight, Refused
from .prefetch import STALE_AFTER, Prefetch
from .process_signals import ProcessSignals
from .reports import report_ends, report_expired, report_interrupted, report_recovered, report_start
from .restart import Restart
from .scheduler import Scheduler
from .shutdown import Shutdown
from .statistics import Stats

#: How long to rest when somebody rings though there is nothing to do, in seconds.
FALSE_ALARM = 0.001
#: How long to wait before the next try when the database refuses, in seconds.
BACK_OFF = 0.2
#: How often in a row it may find that somebody was faster by a moment, with a call that is to be unique.
CONFLICTS = 20
#: How long the last words to the database may take, in seconds.
LAST_WORDS = 5.0
#: The exit code if too many workers are stuck: whoever started the Foreman is to start it again.
STUCK = 3
#: How soon a thread that waits for Python's lock may have it, in seconds: the Foreman must not starve.
SWITCH_INTERVAL = 0.0005


def host_for(connection: BaseDatabaseWrapper) -> type[SqliteHost]:
    """Return what a Foreman on a database needs."""
    if connection.vendor not in ADAPTERS:
        return SqliteHost
    host: type[SqliteHost] = adapter(connection, "host").PostgresHost
    return host


class Foreman:
    """The one process that claims, starts and settles the tasks of a queue.

    >>> exit_code = Foreman().run()
    """

    def __init__(
        self,
        queues: Sequence[str] = (),
        strict: bool = False,
        fork_server: ForkServer | None = None,
        burst: bool = False,
        **settings: Any,
    ) -> None:
        """Open the queue's database. Raises CannotStart if the Foreman could not work with it.

        `queues`: the only ones to serve, all if empty. `strict`: nothing from one of them while there
        is something in one before it. `fork_server`: for isolated tasks, which fail without one. `burst`:
        stop once the queue is empty. `settings`: instead of those in SNAPPEA.
        """
        self.fork_server = fork_server
        self.settings = dataclasses.replace(current(), **settings)
        for name in HOOKS:
            hook(name)  # a hook that cannot be had fails here, not in each task
        self.connection = connect()
        self.host = host_for(self.connection)(self.connection, self.settings, fork_server)
        self.admission = Admission(queues, strict, self.host.is_shared)
        self.in_flight = InFlight()
        self.stats = Stats(self.settings.STATS_RETENTION_MINUTES)
        self.process_signals = ProcessSignals()
        self.restart = Restart(self.settings, self.in_flight)
        self.shutdown = Shutdown(self.settings, self.in_flight, self.process_signals, self.restart, burst)
        self._has_news = True  # somebody may have written since the last claim
        self._next_peek = 0.0
        self._failures = 0  # of turns, one after the other
        self._peek = Peek(None, None, None, False, None, False, False, False, False, False, None)
        self._scheduler = Scheduler()
        self.quarantine = Quarantine()
        self._uses_loop = any(task.is_async for task in registry.values())
        self._prefetch = Prefetch(self.host.most_ahead)
        self._stuck_told = -1  # how many stuck workers the lock tells of
        self._is_idle = False  # the last round found nothing to claim, and nothing runs

    def run(self) -> int:
        """Work until a signal says stop, and return the exit code: 0 after an orderly stop.

        If it is to restart then, signals are held back until the process has done so, or ended.
        Raises CannotStart if another Foreman is at work or the files beside the database
        cannot be written.
        """
        sys.setswitchinterval(SWITCH_INTERVAL)
        host, workers = self.host, self.settings.NUM_WORKERS
        try:
            host.enter()
            quarantined(self._recover)
            host.equip()
            self.bell, self.maintenance = host.bell, host.maintenance
            self.in_flight.logbook = host.logbook
            self.restart.nudge = self.bell.nudge
            per_thread = self.settings.MAX_TASKS_PER_THREAD
            self.pool = WorkerPool(workers, host.logbook, self.bell.nudge, self.fork_server, per_thread)
            ready, facts = store.depth(raw(self.connection)), host.facts()
        except (OSError, *FAULTS) as error:
            raise CannotStart(f"The Foreman of {host.name} cannot start: {error}.") from error
        with self.process_signals.paid(self.bell.wakeup_fd, host.leave_to_parent):
            report_start(host.name, workers, ready, self.bell.kind, facts)
            rang = False
            while not self.shutdown.is_done():
                host.require_intact()
                rang = self._turn(rang)
            self._leave()
            if self.shutdown.is_to_restart:
                self.process_signals.hand_on(self.bell.reader_fd)
        return self.shutdown.exit_code

    def _recover(self) -> None:
        """Settle what a dead Foreman left, before anything is claimed."""
        with transact(self.connection) as db:
            recovered = self.host.recover(db, moment := now(self.connection))
            self._scheduler.open(db, moment)
        report_recovered(recovered)

    # the round

    def _turn(self, rang: bool) -> bool:
        """Do what is to be done, then sleep. Take and tell whether the bell ended the sleep."""
        try:
            self.quarantine.inspect_rows(self.connection)
            self.pool.enforce_limits()
            self.host.mend()
            self._look()
            if self.shutdown.begins_to_drain():  # look once more, whatever the last look said
                self._is_idle, self._has_news = False, True
            self.shutdown.heed_signals(self._is_idle)
            self._has_news = self._has_news or rang
            if self._has_work() and not self._round() and rang:
                self.bell.wait(FALSE_ALARM, for_rings=False)  # a flood of rings must cost little
            self._failures = 0
            if self.shutdown.heed_restart(self.pool.backlog()):
                self._has_news = True
            return self._sleep()
        except Exception as error:  # of the database, of the system; or of what somebody wrote into a row
            self.host.require_intact()
            self.in_flight.abandon()
            self._failures += 1
            if isinstance(error, (IntegrityError, Refused)) and self._failures < CONFLICTS:
                return True
            self.maintenance.next_look = 0.0  # a file may be gone
            self.quarantine.note(error)
            say_seldom(ERROR, "The round failed: %r. Nothing is lost; trying again until it works.", error)
            self.shutdown.heed_signals(self._is_idle)
            self.bell.wait(BACK_OFF, for_rings=False)
            return False

    def _look(self) -> None:
        """Look, once in a while, at the files, and whether somebody wrote without being heard."""
        here = time.monotonic()
        if here >= self.maintenance.next_look:
            if why := self.maintenance.look():
                self.shutdown.stop(why, exit_code=1)
            self.restart.look()
            if self.in_flight.count_on_loop():
                self.pool.loop.look()
            self._scheduler.look(raw(self.connection), now(self.connection))
            self.stats.look(raw(self.connection))
        if (stuck := self.pool.stuck()) != self._stuck_told:
            self._stuck_told, self._has_news = stuck, True  # another worker takes the place of each
            self.host.tell(self.pool.stuck_ids())
        if stuck > self.settings.MAX_STUCK_WORKERS:
            self.shutdown.stop(f"{stuck} workers are stuck", exit_code=STUCK)
        if here >= self._next_peek:
            self._next_peek = here + self.bell.patience
            self._has_news = self.host.may_have_news() or self._has_news
            self._peek_around()

    def _peek_around(self) -> None:
        """See whether there is something to do. What is done is decided by a glance in the transaction."""
        peek, before = store.peek(raw(self.connection)), self._peek
        is_expired = peek.expiry is not None and peek.expiry <= now(self.connection)
        has_news = peek.has_newcomers or is_expired or (peek.has_addressed and not before.has_addressed)
        self._has_news = self._has_news or has_news
        self._take_notice(peek)

    def _take_notice(self, peek: Peek) -> None:
        """Prepare for what comes next, and end what is to be ended."""
        self._peek = peek
        if peek.has_async and not self._uses_loop:
            self._uses_loop = self._has_news = True
        if peek.has_revoked:
            revoked = store.revoked(raw(self.connection))
            for cell, claim in list(self.in_flight.claims.items()):
                if claim.fence in revoked:
                    self.pool.revoke(cell, claim)

    def _has_work(self) -> bool:
        if self.in_flight.is_to_be_written() or self.pool.has_outcomes() or self._is_stale():
            return True
        if self._is_tick_due() or self.stats.is_due() or self._peek.has_unheard:
            return True
        return self._has_room() and (self._has_news or self._is_due() or self.admission.is_due())

    def _round(self) -> bool:
        """Settle what ended, claim what there is room for, start it. Tell whether there was any."""
        self.in_flight.collect(self.pool.collect())
        self._prefetch.plan(self.in_flight.outcomes, self.pool.size)
        if self._is_stale():
            self._take_back()
        room, loop_room, most = self._room(), self._loop_room(), self.restart.room()
        has_room = room > 0 or loop_room > 0
        claims: list[Claim] = []
        expired: list[Expired] = []
        if self._is_tick_due():
            self._scheduler.prepare(raw(self.connection), now(self.connection))
        with transact(self.connection) as db:
            moment = now(self.connection)
            self._write(db, moment)
            self._scheduler.fire(db, moment)
            peek = self.admission.heed_pauses(db, store.peek(db), self.pool, self.in_flight)
            if has_room:
                rooms = max(room, 0), loop_room, most
                claims, expired = self.admission.admit_and_claim(db, moment, *rooms, peek, self.in_flight)
                self.in_flight.open(claims)
        finished = self._close_accounts(moment)
        self._start()
        was_due = self._scheduler.report()
        if has_room:
            self.admission.forget_left()
            self.admission.note_left(expired)
            self._has_news = bool(expired) or was_due
        self._take_notice(peek._replace(has_addressed=False))
        if has_room:
            has_more = self._has_news or self.in_flight.claims
            self._is_idle = not has_more and self.admission.next_opening() is None
        self.maintenance.note_work()
        self.stats.count_expired(expired, moment)
        report_ends(finished, self.settings.LOG_ARGUMENTS)
        report_expired(expired)
        return bool(claims or finished or expired or was_due)

    def _write(self, db: RawConnection, moment: str) -> None:
        self.in_flight.write(db, moment)
        self.stats.write(db)
        self.admission.note_left(self.in_flight.left())  # given back means cancelled, if revoked

    def _close_accounts(self, moment: str) -> list[Outcome]:
        """Forget the claims whose end is committed, and return their outcomes."""
        finished = self.in_flight.close()
        self.stats.count(finished, moment)
        self._prefetch.note_round()
        return finished

    def _start(self) -> None:
        if not self.in_flight.entered:
            return
        self.pool.low_water = self._prefetch.ahead // 2
        try:
            self.pool.hand_over(self.in_flight.take_entered())
        except Exception:
            self._take_back()
            raise

    def _take_back(self) -> None:
        self.in_flight.take_back(self.pool.take_back())
        self._prefetch.ahead = 0

    # how much, and how long

    def _has_room(self) -> bool:
        return self._room() > 0 or self._loop_room() > 0

    def _room(self) -> int:
        """Return how many tasks may be claimed for the threads."""
        if self.shutdown.is_decided:
            return 0
        room = self.pool.capacity() + self._prefetch.ahead - self.in_flight.count_in_threads()
        return min(room, self.restart.room())

    def _loop_room(self) -> int:
        """Return how many tasks may be claimed for the event loop."""
        if self.shutdown.is_decided or not self._uses_loop:
            return 0
        return min(self.settings.ASYNC_CONCURRENCY - self.in_flight.count_on_loop(), self.restart.room())

    def _is_stale(self) -> bool:
        """Tell whether claims wait that no worker will begin soon."""
        waiting = self.pool.backlog()
        return waiting > 0 and (
            self.shutdown.is_decided or self._prefetch.is_stale(self.pool.handed, waiting)
        )

    def _has_what_cannot_wait(self) -> bool:
        return self.in_flight.has_unwritten() or (self.shutdown.is_decided and self.pool.backlog() > 0)

    def _is_due(self) -> bool:
        return self._peek.due is not None and self._peek.due <= now(self.connection)

    def _is_tick_due(self) -> bool:
        return self._peek.tick is not None and self._peek.tick <= now(self.connection)

    def _sleep(self) -> bool:
        """Sleep until there may be something to do. Tell whether the bell rang."""
        pool = self.pool
        pool.foreman_sleeps = True
        pool.foreman_wakes_at = math.inf  # until it is known, any deadline ends the sleep
        try:
            if pool.needs_foreman() or self.shutdown.is_done() or self._has_what_cannot_wait():
                return False
            here, patience = time.monotonic(), self._patience()
            pool.foreman_wakes_at = here + patience
            return self.bell.wait(patience, for_rings=self._has_room())
        finally:
            pool.foreman_sleeps = False
            pool.foreman_wakes_at = 0.0

    def _patience(self) -> float:
        """Return how long to sleep at most, in seconds."""
        if (self.shutdown.drains and self._is_idle) or (self._has_news and self._has_room()):
            return 0
        here = time.monotonic()
        patience = min(self.maintenance.next_look, self._next_peek, self.pool.next_deadline()) - here
        if self._peek.tick is not None:
            patience = min(patience, seconds_until(self._peek.tick))
        if self.pool.backlog():
            patience = min(patience, STALE_AFTER)
        if self._peek.has_unheard:
            patience = min(patience, CONFIRM_EVERY)
        if self.shutdown.stop_by is not None:
            patience = min(patience, self.shutdown.stop_by - here)
        elif self._has_room():
            if (opening := self.admission.next_opening()) is not None:
                patience = min(patience, opening - here)
            if self._peek.due is not None:
                patience = min(patience, seconds_until(self._peek.due))
        return patience

    # the end

    def _leave(self) -> None:
        """Settle everything for the last time: what still runs is interrupted."""
        give_up = time.monotonic() + LAST_WORDS
        while True:
            try:
                self.host.mend()
                self._say_last_words()
                with transact(self.connection) as db:
                    self.stats.write(db, at_once=True)
                self.host.leave()
                return
            except (*FAULTS, OSError) as error:
                if time.monotonic() > give_up and not self.shutdown.is_to_restart:
                    say(ERROR, "Could not write the last states (%r); the next Foreman will.", error)
                    self.shutdown.exit_code = 1
                    return
                say_seldom(WARNING, "Could not yet write the last states: %r", error)
                time.sleep(BACK_OFF)

    def _say_last_words(self) -> None:
        why = "The Foreman was stopped while this task ran."
        self._take_back()
        with transact(self.connection) as db:
            # only now, for it may have taken long to get here: what has ended in the meantime was not stopped
            self.in_flight.collect(self.pool.collect())
            running = list(self.in_flight.running())
            moment = now(self.connection)
            self._write(db, moment)
            states = [store.interrupt(db, moment, claim.fence, why) for claim in running]
        report_ends(self._close_accounts(moment), self.settings.LOG_ARGUMENTS)
        for claim, status in zip(running, states, strict=True):
            report_interrupted(claim.id, claim.task_name, status)
        for framework in frameworks:
            framework.close()
        say(INFO, "Stopped.")
