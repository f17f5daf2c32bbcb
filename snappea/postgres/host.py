"""The Foreman's Host on PostgreSQL: no files, and perhaps other Foremen."""

# ruff: noqa: D102  (see Host and Bell for the methods)

import json
import os
import select
import time
from collections.abc import Collection, Sequence
from logging import ERROR, INFO

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import Settings
from ..errors import CannotStart
from ..foreman.host import Host
from ..foreman.reports import report_recovered
from ..foreman.systemd import Supervisor
from ..log import say
from ..queue.clock import now
from ..queue.database import RawConnection, raw, transact
from ..queue.foremen import require_home
from ..queue.lock import require_same
from ..queue.logbook import Logbook
from ..queue.records import Recovered
from ..queue.wakeup import Bell
from ..workers.processes.fork_server import ForkServer
from . import foremen
from .connection import PostgresConnection
from .front import Front
from .vacuum import Vacuum

#: How often to check without a notification, in seconds.
POLL_EVERY = 2.0
#: How long a statement waits for another process's lock, in seconds.
LOCK_TIMEOUT = 2.0
#: Heartbeats per FOREMAN_TIMEOUT.
BEATS = 4
#: How long the server keeps a transaction, with its locks, of a Foreman that is frozen, in seconds. At most
#: half of FOREMAN_TIMEOUT, which is how long a Foreman waits for an answer.
LONGEST_REST = 5.0
#: After how many rings in a row that brought no work a Foreman leaves them to the one that must listen.
IN_VAIN = 3


class ListenBell(Bell):
    """Rings on a notification on the Foreman's connection."""

    kind = "LISTEN"
    patience = POLL_EVERY

    def __init__(self) -> None:
        super().__init__()
        self._link: PostgresConnection | None = None
        self._socket = -1
        self._rang = False
        #: Whether it must listen. Otherwise, it stops once it has rung IN_VAIN times in a row without work.
        self.is_needed = True
        self._in_vain = 0

    def attach(self, link: PostgresConnection) -> None:
        """Wait for rings on a new connection, once it listens."""
        if self._socket >= 0:
            self._all.unregister(self._socket)
        self._link, self._socket = link, link.connection.fileno()
        self._all.register(self._socket, select.POLLIN)
        link.connection.add_notify_handler(self._note)  # for those that arrive with a query's result
        self.is_deaf = self._rang = True

    def listen(self) -> None:
        assert self._link
        self._link.execute("LISTEN snappea")
        self.is_deaf, self._in_vain = False, 0
        self._rang = True  # earlier notifications were not received

    def rest(self, seconds: float) -> None:
        super().wait(seconds, for_rings=False)
        self._in_vain += 1
        if self._link and self._in_vain >= IN_VAIN and not (self.is_needed or self.is_deaf):
            self._link.execute("UNLISTEN snappea")
            self.is_deaf = True

    def _note(self, _notify: object) -> None:
        self._rang = True

    def wait(self, timeout: float, for_rings: bool = True) -> bool:
        rang = super().wait(0 if for_rings and self._rang else timeout, for_rings)
        self._in_vain *= for_rings  # without, all its workers are busy
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
        except psycopg.Error:  # the connection is lost; the next query raises
            return True
        while connection.pgconn.notifies():
            self._rang = True
        return self._rang


class PostgresHost(Host):
    """A connection to PostgreSQL, and a heartbeat there."""

    shared = foremen
    most_ahead = 0  # a claimed task counts as begun: after a crash, no other process could tell

    def __init__(
        self, connection: BaseDatabaseWrapper, settings: Settings, fork_server: ForkServer | None
    ) -> None:
        super().__init__(connection, settings, fork_server)
        link = raw(connection)
        if not isinstance(link, PostgresConnection):
            raise CannotStart(f"The Foreman does not support the database {connection.vendor}.")
        info = link.connection.info
        self.name = f"{info.dbname} on {info.host or 'this machine'}"
        self._supervisor = Supervisor()
        self._vacuum, self.claim = Vacuum(connection), Front().claim
        self._stuck = self._queues = "[]"
        self._identity: os.stat_result | None = None
        self._next_beat = 0.0  # by time.monotonic()
        self._beaten_at = self._watches_since = 0.0  # by the server's clock
        self._answers_within = settings.FOREMAN_TIMEOUT / 2
        options = {
            "connect_timeout": max(2, int(self._answers_within)),
            **connection.settings_dict["OPTIONS"],
        }
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}

    @property
    def _link(self) -> PostgresConnection:
        link = raw(self.connection)
        assert isinstance(link, PostgresConnection)
        return link

    def enter(self, waits: bool = False) -> None:
        self._foreman_id = foremen.register(self._link, self.settings.NUM_WORKERS)
        self._set_up_connection()

    def _set_up_connection(self) -> None:
        self._link.connection.prepare_threshold = 5
        self._identity = os.fstat(self._link.connection.fileno())
        self._link.give_up_after(self._answers_within)
        limits = {
            "lock_timeout": LOCK_TIMEOUT,
            "statement_timeout": self._answers_within,
            "idle_in_transaction_session_timeout": min(LONGEST_REST, self._answers_within),
        }
        for name, seconds in limits.items():
            self._link.execute(f"SET {name} = {int(1000 * seconds)}")
        foremen.use_indexes(self._link)
        foremen.be_known(self._link, self._foreman_id)

    def recover(self, db: RawConnection, moment: str) -> list[Recovered]:
        db.execute(foremen.HOLD_SCHEDULES)
        return []  # what dead Foremen left is found later: a newcomer cannot know which ones live

    def equip(self) -> None:
        self.bell = self._bell = ListenBell()
        self._bell.attach(self._link)
        self.logbook = Logbook(None, self._cells())

    def facts(self) -> str:
        version = self._link.connection.info.server_version
        others = len(foremen.foremen_at_work()) - 1
        return f"PostgreSQL {version // 10000}.{version % 10000}, other Foremen: {others}"

    def require_intact(self) -> None:
        if self._identity and not self._link.connection.closed:
            require_same(self._link.connection.fileno(), self._identity)

    def check(self) -> None:
        self.require_intact()
        if self._link.connection.closed:
            self._reconnect()
        if (here := time.monotonic()) >= self._next_beat:  # also while it leaves, and may have to wait
            self._beat()
            self._vacuum.look(self._link)
            self._next_beat = here + self.settings.FOREMAN_TIMEOUT / BEATS

    def _reconnect(self) -> None:
        self._identity = None
        self._beaten_at = 0.0  # others may have lost their connections too, and need time to reconnect
        self.connection.close()
        self.connection.ensure_connection()
        self._set_up_connection()
        self._bell.attach(self._link)
        say(INFO, "Reconnected to %s.", self.name)
        self._next_beat = 0.0

    def look(self, worked_at: float, is_idle: bool = False) -> str:
        self.next_look = time.monotonic() + min(POLL_EVERY, self.settings.FOREMAN_TIMEOUT / BEATS)
        self._supervisor.reassure()
        return ""

    def _beat(self) -> None:
        timeout, before = self.settings.FOREMAN_TIMEOUT, self._beaten_at
        beaten_at = self._renew()
        if beaten_at is None:
            self._return()
            return
        if beaten_at > before + timeout * (BEATS - 1) / BEATS:
            self._watches_since = beaten_at  # it has just come, or was itself frozen or cut off
        self._beaten_at = beaten_at
        if beaten_at < self._watches_since + timeout:
            return
        with transact(self.connection) as db:
            found = foremen.reap(db, now(self.connection), timeout)
        for name, tasks in found.items():
            report_recovered(tasks, name)
        if found:
            self.bell.nudge()

    def _return(self) -> None:
        """Work on under a new id: another Foreman considers this one dead."""
        require_home(self._link)
        with transact(self.connection) as db:
            foreman_id = foremen.register(db, self.settings.NUM_WORKERS)
            foremen.adopt(db, foreman_id, self._foreman_id)
        self._foreman_id = foreman_id
        foremen.be_known(self._link, foreman_id)
        self._renew()
        self._beaten_at = 0.0
        said = (
            "No heartbeat for FOREMAN_TIMEOUT (%g s): another Foreman considers this one dead. It has "
            "interrupted the running tasks, and their results are not written."
        )
        say(ERROR, said, self.settings.FOREMAN_TIMEOUT)

    def tell(self, stuck: Collection[int], queues: Sequence[str], strict: bool) -> None:
        self._stuck, self._queues = json.dumps(list(stuck)), json.dumps(list(queues))
        self._renew()

    def _renew(self) -> float | None:
        workers = self.settings.NUM_WORKERS
        found = foremen.renew(self._link, self._foreman_id, workers, self._stuck, self._queues)
        if found is None:
            return None
        beaten_at, self._bell.is_needed = found
        if self._bell.is_needed and self._bell.is_deaf:
            self._bell.listen()
        return beaten_at

    def leave_to_parent(self) -> None:
        pass  # psycopg knows that the connection is its parent's

    def leave(self) -> None:
        with transact(self.connection) as db:
            foremen.leave(db, self._foreman_id)
