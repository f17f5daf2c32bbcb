"""The Foreman: claims, starts and settles tasks. One process, one thread, one loop.

Each turn of the loop computes a Round: what to do, how many tasks to claim, how long to sleep. The work is
one transaction: write the outcomes, promote due tasks, claim as many tasks as there is room for.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from logging import ERROR, INFO, WARNING
from math import inf
from typing import Any

from django.db import IntegrityError

from ..conf import HOOKS, current, hook
from ..errors import CannotStart
from ..log import foreman, say, say_seldom
from ..queue import batches, groups, store, unique
from ..queue.clock import now
from ..queue.database import ADAPTERS, FAULTS, adapter, connect, raw, ring_on_commit, transact, writing
from ..queue.foremen import require_home
from ..queue.quarantine import Quarantine, quarantined
from ..queue.records import Claim, Expired, Outcome
from ..tasks import frameworks
from ..workers.processes.fork_server import ForkServer
from ..workers.threads import WorkerPool, drain
from .admission import Admission
from .host import Host
from .in_flight import InFlight, Refused
from .reports import report_ends, report_expired, report_interrupted, report_recovered, report_start
from .restart import Restart
from .round import Planner, Round
from .scheduler import Scheduler
from .shutdown import Shutdown
from .sqlite_host import SqliteHost
from .statistics import Stats

#: How long to pause after a wakeup that brought no work, in seconds, so that a flood of them costs little.
FALSE_ALARM = 0.001
#: How long to wait, once all are deleted, before the next look at outdated rows, in seconds.
FORGET_EVERY = 60.0
#: How long to wait before the next try after a database error, in seconds.
BACK_OFF = 0.2
#: How many conflicts in a row over a unique call are retried immediately.
CONFLICTS = 20
#: How long the final write to the database may take, in seconds.
LAST_WORDS = 5.0
#: The exit code if too many workers are stuck, so that the supervisor restarts the Foreman.
STUCK = 3
#: How soon a waiting thread gets the GIL, in seconds: the Foreman must not starve.
SWITCH_INTERVAL = 0.0005


class Foreman:
    """The process that claims, starts and settles tasks."""

    def __init__(
        self,
        queues: Sequence[str] = (),
        strict: bool = False,
        fork_server: ForkServer | None = None,
        burst: bool = False,
        **settings: Any,
    ) -> None:
        """Open the queue's database. Raises CannotStart if the Foreman cannot work with it.

        `queues`: the only ones to serve, all if empty. `strict`: serve a queue only while the ones before it
        are empty. `fork_server`: for isolated tasks, which fail without it. `burst`: stop once the queue is
        empty. `settings`: override those in SNAPPEA.
        """
        self.settings = dataclasses.replace(current(), **settings)
        for name in HOOKS:
            hook(name)  # an invalid hook fails here, not in each task
        self.connection = connect()
        is_sqlite = self.connection.vendor not in ADAPTERS
        kind: type[Host] = SqliteHost if is_sqlite else adapter(self.connection, "host").PostgresHost
        self.host = kind(self.connection, self.settings, fork_server)
        self.admission = Admission(queues, strict, self.host.shared, self.host.claim)
        self.in_flight = InFlight()
        self.stats = Stats(self.settings.STATS_RETENTION_MINUTES)
        self.restart = Restart(self.settings, self.in_flight)
        self.shutdown = Shutdown(self.settings, self.in_flight, self.restart, burst)
        self.quarantine = Quarantine()
        self._scheduler = Scheduler()
        parts = self.in_flight, self.admission, self.stats, self.restart, self.shutdown
        self._planner = Planner(self.settings, self.host.most_ahead, *parts)
        self._forget_at = 0.0
        self._failures = 0  # failed turns in a row
        self._stuck_told = -1  # the last known number of stuck workers

    def run(self, waits: bool = False) -> int:
        """Work until a signal stops it, and return the exit code: 0 after an orderly stop.

        If a restart follows, signals wait until then. `waits`: while another Foreman runs. Otherwise, raises
        CannotStart then, and if the files beside the database cannot be written.
        """
        sys.setswitchinterval(SWITCH_INTERVAL)
        ready, facts = self._open(waits)
        with self.shutdown.count_signals(self.bell.wakeup_fd, self.host.leave_to_parent):
            report_start(self.host.name, self.settings.NUM_WORKERS, ready, self.bell.kind, facts)
            rang = False
            while self.shutdown.stop_by is None or not self.shutdown.is_done():
                rang = self._turn(rang)
            self._leave()
            if self.shutdown.is_to_restart:
                self.shutdown.hand_on_signals(self.bell.reader_fd)
        return self.shutdown.exit_code

    def _open(self, waits: bool = False) -> tuple[int, str]:
        """Get ready to work. Return how many tasks are ready, and a description of the database."""
        host, settings = self.host, self.settings
        try:
            host.enter(waits)
            self._require_home()
            quarantined(self._recover)
            self.stats.write_start(self.connection)
            host.equip()
            self.bell, self.in_flight.logbook = host.bell, host.logbook
            self.restart.nudge = self.bell.nudge
            makes = host.logbook, self.bell.nudge, host.fork_server, settings.MAX_TASKS_PER_THREAD
            self.pool = self._planner.pool = WorkerPool(settings.NUM_WORKERS, *makes)
            return store.depth_by(raw(self.connection)), host.facts()
        except (OSError, *FAULTS) as error:
            raise CannotStart(f"The Foreman of {host.name} cannot start: {error}.") from error

    def _require_home(self) -> None:
        try:
            require_home(raw(self.connection))
        except CannotStart:
            self.host.leave()
            raise

    def _recover(self) -> None:
        """Settle the tasks that a dead Foreman left running, before anything is claimed."""
        with transact(self.connection) as db:
            recovered = self.host.recover(db, moment := now(self.connection))
            self._scheduler.open(db, moment)
        report_recovered(recovered)

    def _turn(self, rang: bool) -> bool:
        """Do what there is to do, or sleep until there is something. Return whether the bell rang.

        `rang`: whether it did in the last turn.
        """
        try:
            planner = self._planner
            planner.may_have_more |= rang
            if self.pool.is_watched or self._stuck_told:  # first, so that limits hold if the database fails
                planner.may_have_more |= self._enforce_limits()
            if not rang and time.monotonic() >= planner.look_at:
                planner.may_have_more |= self._look()
            turn = planner.plan(rang)
            if not turn.has_work:
                return self._sleep(turn)
            if self._work(turn):
                if self.bell.is_deaf:  # it found work that no ring told it of: more Foremen must listen
                    self.bell.listen()
            elif rang:
                self.bell.rest(FALSE_ALARM)
            if self.admission.opens_for_others:
                ring_on_commit(self.connection)
                self.admission.opens_for_others = False
            self._failures = 0
            return False
        except Exception as error:  # from the database, the system, or a row that was edited by hand
            return self._recover_from(error)

    def _recover_from(self, error: Exception) -> bool:
        """Prepare to retry a failed turn. Return whether to retry immediately."""
        self.host.require_intact()
        self.in_flight.abandon()
        self._failures += 1
        if isinstance(error, (IntegrityError, Refused)) and self._failures < CONFLICTS:
            return True
        self._planner.look_at = self.host.next_look = 0.0  # a file may be gone
        self.quarantine.note(error)
        say_seldom(ERROR, "The round failed: %r. Nothing is lost; retrying until it works.", error)
        self._planner.may_have_more = True  # the turn may have noticed something
        self.shutdown.decide(False, len(self.pool.backlog))
        self.bell.wait(BACK_OFF, for_rings=False)
        return False

    def _look(self) -> bool:
        """Check the files and the tables from time to time. Return whether there may be more to claim."""
        self.host.check()
        self.quarantine.inspect_rows(self.connection)
        planner, has_news, here = self._planner, self.host.may_have_news(), time.monotonic()
        has_changed = planner.has_changed() or has_news
        if has_changed or here >= self.host.next_look:
            if why := self.host.look(planner.worked_at, not self.in_flight.claims):
                self.shutdown.stop(why, exit_code=1)
            self.restart.look()
            if self.in_flight.on_loop:
                self.pool.loop.look()
            self._scheduler.look(self.connection, now(self.connection))
            if here >= self._forget_at:
                with writing(self.connection) as db:
                    moment = now(self.connection)
                    has_more = [rows.forget(db, moment) for rows in (unique, groups, batches)]
                self._forget_at = here if any(has_more) else here + FORGET_EVERY
        self.stats.look(raw(self.connection))
        if has_changed:
            has_news |= planner.look(raw(self.connection))
        planner.look_at = min(self.host.next_look, here + self.bell.patience)
        return has_news

    def _enforce_limits(self) -> bool:
        """Interrupt tasks that exceed a limit. Return whether the number of stuck workers has changed."""
        self.pool.enforce_limits()
        if (stuck := len(self.pool.stuck)) == self._stuck_told:
            return False
        self._stuck_told = stuck
        if stuck > self.settings.MAX_STUCK_WORKERS:
            self.shutdown.stop(f"{stuck} workers are stuck", exit_code=STUCK)
        self.host.require_intact()
        served = self.admission.served, self.admission.is_strict
        self.host.tell(self.pool.stuck_ids(), *served)  # last, because it may fail
        return True

    def _work(self, turn: Round) -> bool:
        """Write outcomes, claim tasks and start them. Return whether there was anything to do."""
        self.host.check()
        admission, in_flight, planner = self.admission, self.in_flight, self._planner
        claims: list[Claim] = []
        expired: list[Expired] = []
        if turn.fires:
            self._scheduler.prepare(raw(self.connection), now(self.connection))
        with transact(self.connection) as db:
            moment = now(self.connection)
            admission.note_left(in_flight.write(db, moment))  # given back means cancelled, if revoked
            if self.stats.backlog is not None:
                self.stats.write(db)
            if turn.fires:
                self._scheduler.fire(db, moment)
            peek = store.peek(db)
            if peek.has_unheard:
                peek = admission.heed_pauses(db, self.pool, in_flight)
            if turn.has_room:
                claims, expired, peek = admission.admit_and_claim(db, moment, *turn.rooms, peek, in_flight)
                in_flight.open(claims)
        finished = in_flight.close()
        if turn.has_room:
            admission.left.clear()  # only now, when the claims are committed
            admission.note_left(expired)
            planner.may_have_more = bool(expired)
        try:
            planner.take_notice(peek, is_of_round=True)
            if claims:
                self.pool.low_water = turn.ahead // 2
                self._start()
            was_due = turn.fires and self._scheduler.report()
            if peek.has_revoked:
                planner.end_revoked(raw(self.connection))
        finally:  # the outcomes are committed
            if finished or expired:
                self._report(finished, expired, moment)
        return bool(claims or finished or expired or was_due)

    def _start(self) -> None:
        try:
            self.pool.hand_over(self.in_flight.take_entered())
        except Exception:
            self._planner.take_back()
            raise

    def _report(self, finished: list[Outcome], expired: list[Expired], moment: str) -> None:
        self.stats.count(finished, moment)
        if not foreman.isEnabledFor(INFO):  # most need no line and no notification
            finished = [outcome for outcome in finished if outcome.error or outcome.claim.extras_json]
        if finished:
            report_ends(finished, self.settings.LOG_ARGUMENTS)
        if expired:
            self.stats.count_expired(expired, moment)
            report_expired(expired)

    def _sleep(self, turn: Round) -> bool:
        """Sleep until there may be something to do. Return whether the bell rang."""
        pool = self.pool
        pool.foreman_sleeps = True
        pool.foreman_wakes_at = inf  # for now, any deadline ends the sleep
        try:
            if pool.needs_foreman():
                return False
            pool.foreman_wakes_at = min(turn.wakes_at, pool.next_deadline())
            return self.bell.wait(pool.foreman_wakes_at - time.monotonic(), for_rings=turn.has_room)
        finally:
            pool.foreman_sleeps, pool.foreman_wakes_at = False, 0.0

    def _leave(self) -> None:
        """Write the final states. Tasks that still run become interrupted."""
        give_up = time.monotonic() + LAST_WORDS
        while True:
            try:
                self.host.check()
                self._say_last_words()
                with transact(self.connection) as db:
                    self.stats.write(db, at_once=True)
                self.host.leave()
                return
            except (*FAULTS, OSError) as error:
                if time.monotonic() > give_up and not self.shutdown.is_to_restart:
                    say(ERROR, "Could not write the final states (%r). The next Foreman will.", error)
                    self.shutdown.exit_code = 1
                    return
                say_seldom(WARNING, "Could not write the final states yet: %r", error)
                time.sleep(BACK_OFF)

    def _say_last_words(self) -> None:
        why = "The Foreman was stopped while this task ran."
        self._planner.take_back()
        self.in_flight.take_back(self.pool.loop.take_back())
        with transact(self.connection) as db:
            # not earlier: tasks may have ended while the transaction waited for its lock
            self.in_flight.collect(drain(self.pool.outcomes))
            running = self.in_flight.running()
            moment = now(self.connection)
            self.in_flight.next_notes = 0.0  # the last ones of running tasks, too
            self.admission.note_left(self.in_flight.write(db, moment) + running)
            states = [store.interrupt(db, moment, claim.fence, why) for claim in running]
            self.admission.hand_on(db)
        self._report(self.in_flight.close(), [], moment)
        for claim, status in zip(running, states, strict=True):
            report_interrupted(claim, status)
        for framework in frameworks:
            framework.close()
        say(INFO, "Stopped.")
