"""The Foreman: claims, starts and settles tasks. One process, one thread, one loop.

A round: collect the outcomes; in one transaction write them, promote what is due, claim as
many as there is room for; start what was claimed; sleep until a wakeup, an outcome, a
deadline or a signal.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from logging import ERROR, WARNING
from typing import Any

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import HOOKS, current, hook
from ..errors import CannotStart
from ..log import say, say_seldom
from ..queue import store
from ..queue.connection import FAULTS, Link
from ..queue.database import connect, now, raw, seconds_until, transact
from ..queue.operations import CONFIRM_EVERY
from ..queue.quarantine import Sieve, sifted
from ..queue.records import Claim, Expired, Glance, Outcome
from ..stats import Stats
from ..tasks.registry import registry
from ..workers.processes.fork_server import Nursery
from ..workers.threads import Crew
from .admission import Gatekeeper
from .attention import Attention
from .host import Workshop
from .in_flight import Accounts, Refused
from .prefetch import STALE_AFTER, Pace
from .reports import (
    report_ends,
    report_expired,
    report_interrupted,
    report_recovered,
    report_start,
    report_stop,
)
from .restart import Renewal
from .scheduler import Timetable
from .shutdown import Departure

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


def workshop_for(connection: BaseDatabaseWrapper) -> type[Workshop]:
    """Return what a Foreman on a database needs."""
    if connection.vendor == "postgresql":
        from ..postgres.host import RemoteWorkshop  # needs psycopg

        return RemoteWorkshop
    return Workshop


class Foreman:
    """The one process that claims, starts and settles the tasks of a queue.

    >>> exit_code = Foreman().run()
    """

    def __init__(
        self,
        queues: Sequence[str] = (),
        strict: bool = False,
        nursery: Nursery | None = None,
        burst: bool = False,
        **settings: Any,
    ) -> None:
        """Open the queue's database. Raises CannotStart if the Foreman could not work with it.

        `queues`: the only ones to serve, all if empty. `strict`: nothing from one of them while there
        is something in one before it. `nursery`: for isolated tasks, which fail without one. `burst`:
        stop once the queue is empty. `settings`: instead of those in SNAPPEA.
        """
        self.nursery = nursery
        self.settings = dataclasses.replace(current(), **settings)
        for name in HOOKS:
            hook(name)  # a hook that cannot be had fails here, not in each task
        self.connection = connect()
        self.workshop = workshop_for(self.connection)(self.connection, self.settings, nursery)
        self.gatekeeper = Gatekeeper(queues, strict, self.workshop.is_shared)
        self.accounts = Accounts()
        self.stats = Stats(self.settings.STATS_RETENTION_MINUTES)
        self.attention = Attention()
        self.renewal = Renewal(self.settings, self.accounts)
        self.departure = Departure(self.settings, self.accounts, self.attention, self.renewal, burst)
        self._has_news = True  # somebody may have written since the last claim
        self._next_glance = 0.0
        self._failures = 0  # of turns, one after the other
        self._glance = Glance(None, None, None, False, None, False, False, False, False, False, None)
        self._timetable = Timetable()
        self.sieve = Sieve()
        self._uses_loop = any(task.is_async for task in registry.values())
        self._pace = Pace(self.workshop.most_ahead)
        self._stuck_told = -1  # how many stuck workers the lock tells of
        self._is_idle = False  # the last round found nothing to claim, and nothing runs

    def run(self) -> int:
        """Work until a signal says stop, and return the exit code: 0 after an orderly stop.

        If it is to start anew then, signals are held back until the process has done so, or ended.
        Raises CannotStart if another Foreman is at work or the files beside the database
        cannot be written.
        """
        sys.setswitchinterval(SWITCH_INTERVAL)
        workshop, workers = self.workshop, self.settings.NUM_WORKERS
        try:
            workshop.enter()
            sifted(self._recover)
            workshop.equip()
            self.bell, self.caretaker = workshop.bell, workshop.caretaker
            self.accounts.logbook = workshop.logbook
            self.renewal.nudge = self.bell.nudge
            per_thread = self.settings.MAX_TASKS_PER_THREAD
            self.crew = Crew(workers, workshop.logbook, self.bell.nudge, self.nursery, per_thread)
            ready, facts = store.depth(raw(self.connection)), workshop.facts()
        except (OSError, *FAULTS) as error:
            raise CannotStart(f"The Foreman of {workshop.name} cannot start: {error}.") from error
        with self.attention.paid(self.bell.wakeup_fd, workshop.leave_to_parent):
            report_start(workshop.name, workers, ready, self.bell.kind, facts)
            rang = False
            while not self.departure.is_done():
                workshop.require_intact()
                rang = self._turn(rang)
            self._leave()
            if self.departure.is_to_start_anew:
                self.attention.hand_on(self.bell.reader_fd)
        return self.departure.exit_code

    def _recover(self) -> None:
        """Settle what a dead Foreman left, before anything is claimed."""
        with transact(self.connection) as db:
            recovered = self.workshop.recover(db, moment := now(self.connection))
            self._timetable.open(db, moment)
        report_recovered(recovered)

    # the round

    def _turn(self, rang: bool) -> bool:
        """Do what is to be done, then sleep. Take and tell whether the bell ended the sleep."""
        try:
            self.sieve.sift(self.connection)
            self.crew.enforce_limits()
            self.workshop.mend()
            self._look()
            if self.departure.begins_to_drain():  # look once more, whatever the last look said
                self._is_idle, self._has_news = False, True
            self.departure.heed_signals(self._is_idle)
            self._has_news = self._has_news or rang
            if self._has_work() and not self._round() and rang:
                self.bell.wait(FALSE_ALARM, for_rings=False)  # a flood of rings must cost little
            self._failures = 0
            if self.departure.heed_renewal(self.crew.backlog()):
                self._has_news = True
            return self._sleep()
        except Exception as error:  # of the database, of the system; or of what somebody wrote into a row
            self.workshop.require_intact()
            self.accounts.abandon()
            self._failures += 1
            if isinstance(error, (IntegrityError, Refused)) and self._failures < CONFLICTS:
                return True
            self.caretaker.next_look = 0.0  # a file may be gone
            self.sieve.note(error)
            say_seldom(ERROR, "The round failed: %r. Nothing is lost; trying again until it works.", error)
            self.departure.heed_signals(self._is_idle)
            self.bell.wait(BACK_OFF, for_rings=False)
            return False

    def _look(self) -> None:
        """Look, once in a while, at the files, and whether somebody wrote without being heard."""
        here = time.monotonic()
        if here >= self.caretaker.next_look:
            if why := self.caretaker.look():
                self.departure.stop(why, exit_code=1)
            self.renewal.look()
            if self.accounts.count_on_loop():
                self.crew.loop.look()
            self._timetable.look(raw(self.connection), now(self.connection))
            self.stats.look(raw(self.connection))
        if (stuck := self.crew.stuck()) != self._stuck_told:
            self._stuck_told, self._has_news = stuck, True  # another worker takes the place of each
            self.workshop.tell(self.crew.stuck_ids())
        if stuck > self.settings.MAX_STUCK_WORKERS:
            self.departure.stop(f"{stuck} workers are stuck", exit_code=STUCK)
        if here >= self._next_glance:
            self._next_glance = here + self.bell.patience
            self._has_news = self.workshop.may_have_news() or self._has_news
            self._glance_around()

    def _glance_around(self) -> None:
        """See whether there is something to do. What is done is decided by a glance in the transaction."""
        glance, before = store.glance(raw(self.connection)), self._glance
        is_expired = glance.expiry is not None and glance.expiry <= now(self.connection)
        has_news = glance.has_newcomers or is_expired or (glance.has_addressed and not before.has_addressed)
        self._has_news = self._has_news or has_news
        self._take_notice(glance)

    def _take_notice(self, glance: Glance) -> None:
        """Prepare for what comes next, and end what is to be ended."""
        self._glance = glance
        if glance.has_async and not self._uses_loop:
            self._uses_loop = self._has_news = True
        if glance.has_revoked:
            revoked = store.revoked(raw(self.connection))
            for cell, claim in list(self.accounts.in_flight.items()):
                if claim.fence in revoked:
                    self.crew.revoke(cell, claim)

    def _has_work(self) -> bool:
        if self.accounts.is_to_be_written() or self.crew.has_outcomes() or self._is_stale():
            return True
        if self._is_tick_due() or self.stats.is_due() or self._glance.has_unheard:
            return True
        return self._has_room() and (self._has_news or self._is_due() or self.gatekeeper.is_due())

    def _round(self) -> bool:
        """Settle what ended, claim what there is room for, start it. Tell whether there was any."""
        self.accounts.collect(self.crew.collect())
        self._pace.plan(self.accounts.outcomes, self.crew.size)
        if self._is_stale():
            self._take_back()
        room, loop_room, most = self._room(), self._loop_room(), self.renewal.room()
        has_room = room > 0 or loop_room > 0
        claims: list[Claim] = []
        expired: list[Expired] = []
        if self._is_tick_due():
            self._timetable.prepare(raw(self.connection), now(self.connection))
        with transact(self.connection) as db:
            moment = now(self.connection)
            self._write(db, moment)
            self._timetable.fire(db, moment)
            glance = self.gatekeeper.heed_pauses(db, store.glance(db), self.crew, self.accounts)
            if has_room:
                rooms = max(room, 0), loop_room, most
                claims, expired = self.gatekeeper.let_in(db, moment, *rooms, glance, self.accounts)
                self.accounts.open(claims)
        finished = self._close_accounts(moment)
        self._start()
        was_due = self._timetable.report()
        if has_room:
            self.gatekeeper.forget_left()
            self.gatekeeper.note_left(expired)
            self._has_news = bool(expired) or was_due
        self._take_notice(glance._replace(has_addressed=False))
        if has_room:
            has_more = self._has_news or self.accounts.in_flight
            self._is_idle = not has_more and self.gatekeeper.next_opening() is None
        self.caretaker.note_work()
        self.stats.count_expired(expired, moment)
        report_ends(finished, self.settings.LOG_ARGUMENTS)
        report_expired(expired)
        return bool(claims or finished or expired or was_due)

    def _write(self, db: Link, moment: str) -> None:
        self.accounts.write(db, moment)
        self.stats.write(db)
        self.gatekeeper.note_left(self.accounts.left())  # given back means cancelled, if revoked

    def _close_accounts(self, moment: str) -> list[Outcome]:
        """Forget the claims whose end is committed, and return their outcomes."""
        finished = self.accounts.close()
        self.stats.count(finished, moment)
        self._pace.note_round()
        return finished

    def _start(self) -> None:
        if not self.accounts.entered:
            return
        self.crew.low_water = self._pace.ahead // 2
        try:
            self.crew.hand_over(self.accounts.take_entered())
        except Exception:
            self._take_back()
            raise

    def _take_back(self) -> None:
        self.accounts.take_back(self.crew.take_back())
        self._pace.ahead = 0

    # how much, and how long

    def _has_room(self) -> bool:
        return self._room() > 0 or self._loop_room() > 0

    def _room(self) -> int:
        """Return how many tasks may be claimed for the threads."""
        if self.departure.is_decided:
            return 0
        room = self.crew.capacity() + self._pace.ahead - self.accounts.count_in_threads()
        return min(room, self.renewal.room())

    def _loop_room(self) -> int:
        """Return how many tasks may be claimed for the event loop."""
        if self.departure.is_decided or not self._uses_loop:
            return 0
        return min(self.settings.ASYNC_CONCURRENCY - self.accounts.count_on_loop(), self.renewal.room())

    def _is_stale(self) -> bool:
        """Tell whether claims wait that no worker will begin soon."""
        waiting = self.crew.backlog()
        return waiting > 0 and (self.departure.is_decided or self._pace.is_stale(self.crew.handed, waiting))

    def _has_what_cannot_wait(self) -> bool:
        return self.accounts.has_unwritten() or (self.departure.is_decided and self.crew.backlog() > 0)

    def _is_due(self) -> bool:
        return self._glance.due is not None and self._glance.due <= now(self.connection)

    def _is_tick_due(self) -> bool:
        return self._glance.tick is not None and self._glance.tick <= now(self.connection)

    def _sleep(self) -> bool:
        """Sleep until there may be something to do. Tell whether the bell rang."""
        crew = self.crew
        crew.foreman_sleeps = True
        crew.foreman_wakes_at = math.inf  # until it is known, any deadline ends the sleep
        try:
            if crew.needs_foreman() or self.departure.is_done() or self._has_what_cannot_wait():
                return False
            here, patience = time.monotonic(), self._patience()
            crew.foreman_wakes_at = here + patience
            return self.bell.wait(patience, for_rings=self._has_room())
        finally:
            crew.foreman_sleeps = False
            crew.foreman_wakes_at = 0.0

    def _patience(self) -> float:
        """Return how long to sleep at most, in seconds."""
        if (self.departure.drains and self._is_idle) or (self._has_news and self._has_room()):
            return 0
        here = time.monotonic()
        patience = min(self.caretaker.next_look, self._next_glance, self.crew.next_deadline()) - here
        if self._glance.tick is not None:
            patience = min(patience, seconds_until(self._glance.tick))
        if self.crew.backlog():
            patience = min(patience, STALE_AFTER)
        if self._glance.has_unheard:
            patience = min(patience, CONFIRM_EVERY)
        if self.departure.stop_by is not None:
            patience = min(patience, self.departure.stop_by - here)
        elif self._has_room():
            if (opening := self.gatekeeper.next_opening()) is not None:
                patience = min(patience, opening - here)
            if self._glance.due is not None:
                patience = min(patience, seconds_until(self._glance.due))
        return patience

    # the end

    def _leave(self) -> None:
        """Settle everything for the last time: what still runs is interrupted."""
        give_up = time.monotonic() + LAST_WORDS
        while True:
            try:
                self.workshop.mend()
                self._say_last_words()
                with transact(self.connection) as db:
                    self.stats.write(db, at_once=True)
                self.workshop.leave()
                return
            except (*FAULTS, OSError) as error:
                if time.monotonic() > give_up and not self.departure.is_to_start_anew:
                    say(ERROR, "Could not write the last states (%r); the next Foreman will.", error)
                    self.departure.exit_code = 1
                    return
                say_seldom(WARNING, "Could not yet write the last states: %r", error)
                time.sleep(BACK_OFF)

    def _say_last_words(self) -> None:
        why = "The Foreman was stopped while this task ran."
        self._take_back()
        with transact(self.connection) as db:
            # only now, for it may have taken long to get here: what has ended in the meantime was not stopped
            self.accounts.collect(self.crew.collect())
            running = list(self.accounts.running())
            moment = now(self.connection)
            self._write(db, moment)
            states = [store.interrupt(db, moment, claim.fence, why) for claim in running]
        report_ends(self._close_accounts(moment), self.settings.LOG_ARGUMENTS)
        for claim, status in zip(running, states, strict=True):
            report_interrupted(claim.id, claim.task_name, status)
        report_stop()
