"""The Host: the Foreman's lock, logbook, wakeups and checks. There is a Host for each kind of database."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection

from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import Settings
from ..queue import logbook, recovery
from ..queue.database import ADAPTERS, RawConnection, adapter, data_version
from ..queue.lock import Lock, require_same
from ..queue.logbook import Logbook
from ..queue.records import Recovered
from ..queue.wakeup import Bell, FileBell
from ..workers.processes.fork_server import ForkServer
from ..workers.threads import most_at_once
from .admission import SharedLimits
from .maintenance import Maintenance, local_file
from .round import MOST_AHEAD


class Host(ABC):
    """What the Foreman needs, and what depends on the kind of database."""

    #: The database, as the log names it.
    name: str
    bell: Bell
    logbook: Logbook
    #: The limits that all Foremen share, if there may be several.
    shared: SharedLimits | None = None
    #: How many tasks may be claimed before there is a worker for them.
    most_ahead = MOST_AHEAD
    #: When look() is to be called again, by time.monotonic().
    next_look = 0.0

    def __init__(
        self, connection: BaseDatabaseWrapper, settings: Settings, fork_server: ForkServer | None
    ) -> None:
        """Raises CannotStart if no Foreman can work with the database."""
        self.connection = connection
        self.settings = settings
        self.fork_server = fork_server

    @abstractmethod
    def enter(self) -> None:
        """Register this Foreman. Raises CannotStart if another Foreman runs and only one may."""

    @abstractmethod
    def recover(self, db: RawConnection, moment: str) -> list[Recovered]:
        """Settle the tasks that a dead Foreman left running, in a transaction."""

    @abstractmethod
    def equip(self) -> None:
        """Create the bell and the logbook. Raises OSError."""

    @abstractmethod
    def facts(self) -> str:
        """Describe the database for the log."""

    @abstractmethod
    def require_intact(self) -> None:
        """End the process immediately if a task has closed the Foreman's descriptors."""

    def check(self) -> None:
        """Call require_intact(), and reconnect if the connection is lost. Raises one of FAULTS."""
        self.require_intact()

    @abstractmethod
    def look(self, worked_at: float) -> str:
        """Do regular maintenance. Return why the Foreman must stop, or "". Raises one of FAULTS.

        `worked_at`: the time of the last round, by time.monotonic().
        """

    def may_have_news(self) -> bool:
        """Return whether another connection may have written since the last call."""
        return True

    @abstractmethod
    def tell(self, stuck: Collection[int]) -> None:
        """Publish the Foreman's state. `stuck`: the ids of tasks that should have ended."""

    @abstractmethod
    def leave_to_parent(self) -> None:
        """Close what a child forked by a task must not keep open."""

    @abstractmethod
    def leave(self) -> None:
        """Unregister this Foreman."""

    def _cells(self) -> int:
        # twice as many as tasks: those that ended keep their cells while the next are claimed
        return 2 * (most_at_once(self.settings) + self.most_ahead)


class SqliteHost(Host):
    """The Host for a SQLite database, with files beside it."""

    def __init__(
        self, connection: BaseDatabaseWrapper, settings: Settings, fork_server: ForkServer | None
    ) -> None:
        super().__init__(connection, settings, fork_server)
        self.file = local_file(connection)
        self.name = self.file.path
        self._seen: int | None = None

    def enter(self) -> None:
        """Take the lock. Raises CannotStart if another Foreman has it."""
        self.lock = Lock(self.file)
        if self.fork_server:
            self.fork_server.keep(self.lock.descriptor)

    def recover(self, db: RawConnection, moment: str) -> list[Recovered]:
        """Settle the tasks that a dead Foreman left running, by its logbook."""
        return recovery.recover(db, moment, logbook.read(self.file))

    def equip(self) -> None:
        """Create the bell and the logbook."""
        self.bell = bell = FileBell(self.file)
        self.logbook = Logbook(self.file, self._cells())
        self._maintenance = Maintenance(self.connection, self.file, self.lock, bell, self.fork_server)

    def facts(self) -> str:
        """Return the durability of a commit, and SQLite's version."""
        return f"synchronous {self.settings.SYNCHRONOUS}, SQLite {sqlite3.sqlite_version}"

    def require_intact(self) -> None:
        """End the process immediately if a task has closed the lock's descriptor."""
        require_same(self.lock.descriptor, self.lock.identity)

    check = require_intact

    def look(self, worked_at: float) -> str:
        """Maintain the files."""
        why = self._maintenance.look(worked_at)
        self.next_look = self._maintenance.next_look
        return why

    def may_have_news(self) -> bool:
        """Return whether another connection has written since the last call."""
        seen, self._seen = self._seen, data_version(self.connection)
        return self._seen != seen

    def tell(self, stuck: Collection[int]) -> None:
        """Write the Foreman's state into the lock file."""
        self.lock.tell(workers=self.settings.NUM_WORKERS, stuck=stuck)

    def leave_to_parent(self) -> None:
        """Close the lock's descriptor, so that the child does not hold the lock."""
        self.lock.close()

    def leave(self) -> None:
        """Do nothing: the lock ends with the process."""


def host_for(connection: BaseDatabaseWrapper) -> type[Host]:
    """Return the Host for a database."""
    if connection.vendor not in ADAPTERS:
        return SqliteHost
    host: type[Host] = adapter(connection, "host").PostgresHost
    return host
