"""The workshop of a Foreman on PostgreSQL, where there may be others, and nothing lies beside a file."""

import json
import os
import select
import time
from collections.abc import Collection
from logging import ERROR, INFO

import psycopg

from ..errors import CannotStart
from ..foreman.host import SqliteHost
from ..foreman.maintenance import LOOK_EVERY
from ..foreman.reports import report_recovered
from ..foreman.systemd import Supervisor
from ..log import say
from ..queue.clock import now
from ..queue.database import RawConnection, raw, transact
from ..queue.lock import require_same
from ..queue.logbook import Logbook
from ..queue.records import Recovered
from ..queue.wakeup import Bell
from . import foremen
from .connection import PostgresConnection

#: How often to look although nobody rang, in seconds.
POLL_EVERY = 2.0
#: How long to wait for somebody else's lock on a row before looking up, in milliseconds.
LOCK_TIMEOUT = 2000
#: The server keeps its plans, and may have made them while the table was empty: they are to do for any size.
ROBUST_PLANS = """
    SELECT set_config(name, 'off', false)
    FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'jit']) AS name"""
#: So often within FOREMAN_TIMEOUT a Foreman shows that he lives.
BEATS = 4


class ListenBell(Bell):
    """Rings when somebody notifies, on the Foreman's own connection."""

    kind = "LISTEN"
    patience = POLL_EVERY

    def __init__(self) -> None:
        super().__init__()
        self._link: PostgresConnection | None = None
        self._socket = -1
        self._rang = False

    def listen(self, link: PostgresConnection) -> None:
        """Listen on a new connection."""
        if self._socket >= 0:
            self._all.unregister(self._socket)
        self._link, self._socket = link, link.connection.fileno()
        self._all.register(self._socket, select.POLLIN)
        link.connection.add_notify_handler(self._note)  # of what comes along with the answer to a question
        link.execute("LISTEN snappea")
        self._rang = True  # nobody was listening before

    def _note(self, _notify: object) -> None:
        self._rang = True

    def wait(self, timeout: float, for_rings: bool = True) -> bool:
        """Sleep until a ring, a nudge, or `timeout` seconds have passed. Tell whether it rang."""
        rang = super().wait(0 if for_rings and self._rang else timeout, for_rings)
        if for_rings:
            rang, self._rang = rang or self._rang, False
        return rang

    def _hear(self) -> bool:
        connection = self._link.connection if self._link else None
        if connection is None or connection.closed:
            self._all.unregister(self._socket)
            self._socket = -1
            return True
        try:
            connection.pgconn.consume_input()
        except psycopg.Error:  # the connection is lost, as the next question will find
            return True
        while connection.pgconn.notifies():
            self._rang = True
        return self._rang


class _Maintenance:
    """Keeps a Foreman's presence alive, and buries those who have none any more."""

    def __init__(self, host: "PostgresHost") -> None:
        self._host = host
        self._supervisor = Supervisor()
        self.next_look = self._next_beat = 0.0

    def note_work(self) -> None:
        """Take notice of a round."""

    def look(self) -> str:
        """Look after things, and return why the Foreman must stop, or "" if it need not. Raises FAULTS."""
        here = time.monotonic()
        self.next_look = here + LOOK_EVERY
        self._supervisor.reassure()
        fork_server = self._host.fork_server
        if fork_server and fork_server.is_gone():
            return "the fork server has ended, and a process with threads cannot make another"
        if here >= self._next_beat:
            self._host.show_life()
            self._next_beat = here + self._host.settings.FOREMAN_TIMEOUT / BEATS
        return ""


class PostgresHost(SqliteHost):
    """A connection to PostgreSQL, and a presence there."""

    is_shared = True
    most_ahead = 0  # what was claimed has begun: nobody else could tell, after a crash

    def _find(self) -> None:
        link = raw(self.connection)
        if not isinstance(link, PostgresConnection):
            raise CannotStart(f"No Foreman can work with a database of {self.connection.vendor}.")
        info = link.connection.info
        self.name = f"{info.dbname} on {info.host or 'this machine'}"
        self._stuck = "[]"
        self._identity: os.stat_result | None = None
        self._buries_from = 0.0  # by time.monotonic()

    @property
    def _link(self) -> PostgresConnection:
        link = raw(self.connection)
        assert isinstance(link, PostgresConnection)
        return link

    def enter(self) -> None:
        """Be known to others, from now on."""
        self.foreman_id = foremen.register(self._link, self.settings.NUM_WORKERS)
        self._be_known()

    def _be_known(self) -> None:
        self._link.connection.prepare_threshold = 5
        self._identity = os.fstat(self._link.connection.fileno())
        self._link.execute(f"SET lock_timeout = {LOCK_TIMEOUT}")
        self._link.execute(ROBUST_PLANS)
        foremen.be_known(self._link, self.foreman_id)

    def recover(self, db: RawConnection, moment: str) -> list[Recovered]:
        """Settle what dead Foremen left, in a transaction, in which schedules may be written as well."""
        foremen.hold_schedules(db)
        foremen.forget_openings(db)
        found = foremen.reap(db, moment, self.settings.FOREMAN_TIMEOUT)
        return [task for tasks in found.values() for task in tasks]

    def equip(self) -> None:
        """Get ready to work."""
        bell = ListenBell()
        bell.listen(self._link)
        self.bell = bell
        self.logbook = Logbook(None, self._cells())
        self.maintenance = _Maintenance(self)

    def facts(self) -> str:
        """Return what is worth knowing of the database, in words."""
        version = self._link.connection.info.server_version
        others = len(foremen.foremen_at_work()) - 1
        return f"PostgreSQL {version // 10000}.{version % 10000}, other Foremen: {others}"

    def require_intact(self) -> None:
        """End the process at once if a task has closed its descriptors."""
        if self._identity and not self._link.connection.closed:
            require_same(self._link.connection.fileno(), self._identity)

    def mend(self) -> None:
        """Connect again if the connection is lost. Raises one of FAULTS if that cannot be done."""
        if not self._link.connection.closed:
            return
        self._identity = None
        # others may have been cut off as well, and are to have the time to come back
        self._buries_from = time.monotonic() + self.settings.FOREMAN_TIMEOUT
        self.connection.close()
        self.connection.ensure_connection()
        self._be_known()
        assert isinstance(self.bell, ListenBell)
        self.bell.listen(self._link)
        say(INFO, "Connected to %s again.", self.name)
        self.show_life()

    def show_life(self) -> None:
        """Renew the Foreman's presence, and bury those who have not renewed theirs."""
        if not foremen.renew(self._link, self.foreman_id, self.settings.NUM_WORKERS, self._stuck):
            self.enter()
            say(
                ERROR,
                "Not heard of for FOREMAN_TIMEOUT (%g s), and so taken for dead by another one: what ran was "
                "interrupted, and what becomes of it is not written down.",
                self.settings.FOREMAN_TIMEOUT,
            )
        if time.monotonic() < self._buries_from:
            return
        with transact(self.connection) as db:
            found = foremen.reap(db, now(self.connection), self.settings.FOREMAN_TIMEOUT)
        for whose, tasks in found.items():
            report_recovered(tasks, whose)
        if found:
            self.bell.nudge()

    def tell(self, stuck: Collection[int]) -> None:
        """Let others know how the Foreman is."""
        self._stuck = json.dumps(list(stuck))
        foremen.renew(self._link, self.foreman_id, self.settings.NUM_WORKERS, self._stuck)

    def leave_to_parent(self) -> None:
        """Let go of nothing: psycopg knows that a connection is its parent's."""

    def leave(self) -> None:
        """Be gone, for others to see."""
        with transact(self.connection) as db:
            foremen.leave(db, self.foreman_id)
