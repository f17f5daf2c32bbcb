"""What a Foreman has around it: its lock, logbook, wakeups and checks. A Host for each kind of database."""

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
    """What differs from database to database, for the Foreman."""

    #: What the queue's database is called.
    name: str
    bell: Bell
    logbook: Logbook
    #: The limits that hold for all Foremen together, where there may be several.
    shared: SharedLimits | None = None
    #: At most so many tasks are claimed before there is a worker for them.
    most_ahead = MOST_AHEAD
    #: When look() is to be called again, by time.monotonic().
    next_look = 0.0

    def __init__(
        self, connection: BaseDatabaseWrapper, settings: Settings, fork_server: ForkServer | None
    ) -> None:
        """Raises CannotStart if no Foreman could work with the database."""
        self.connection = connection
        self.settings = settings
        self.fork_server = fork_server

    @abstractmethod
    def enter(self) -> None:
        """Be known to other processes from now on. Raises CannotStart if only one Foreman may work."""

    @abstractmethod
    def recover(self, db: RawConnection, moment: str) -> list[Recovered]:
        """Settle what a dead Foreman left, in a transaction."""

    @abstractmethod
    def equip(self) -> None:
        """Get the bell and the logbook ready. Raises OSError."""

    @abstractmethod
    def facts(self) -> str:
        """Return what is worth knowing of the database, in words."""

    @abstractmethod
    def require_intact(self) -> None:
        """End the process at once if a task has closed its descriptors."""

    def check(self) -> None:
        """Do as require_intact(), and connect again if the connection is lost. Raises one of FAULTS."""
        self.require_intact()

    @abstractmethod
    def look(self, worked_at: float) -> str:
        """Look after things once in a while; return why the Foreman must stop, or "". Raises one of FAULTS.

        `worked_at`: when the last round was, by time.monotonic().
        """

    def may_have_news(self) -> bool:
        """Tell whether another connection may have written since this was last asked."""
        return True

    @abstractmethod
    def tell(self, stuck: Collection[int]) -> None:
        """Let other processes know how the Foreman is. `stuck`: the ids of tasks that should have ended."""

    @abstractmethod
    def leave_to_parent(self) -> None:
        """Close what a child that a task has forked must not keep open."""

    @abstractmethod
    def leave(self) -> None:
        """Be gone, for other processes to see."""

    def _cells(self) -> int:
        """Return how many cells are needed: what ended keeps its own while its successors are claimed."""
        return 2 * (most_at_once(self.settings) + self.most_ahead)


class SqliteHost(Host):
    """The files beside a SQLite database."""

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
        """Settle what a dead Foreman left, by its logbook."""
        return recovery.recover(db, moment, logbook.read(self.file))

    def equip(self) -> None:
        """Get ready to work."""
        self.bell = bell = FileBell(self.file)
        self.logbook = Logbook(self.file, self._cells())
        self._maintenance = Maintenance(self.connection, self.file, self.lock, bell, self.fork_server)

    def facts(self) -> str:
        """Return how safe a commit is, and the version."""
        return f"synchronous {self.settings.SYNCHRONOUS}, SQLite {sqlite3.sqlite_version}"

    def require_intact(self) -> None:
        """End the process at once if a task has closed its descriptors."""
        require_same(self.lock.descriptor, self.lock.identity)

    check = require_intact

    def look(self, worked_at: float) -> str:
        """Look after the files."""
        why = self._maintenance.look(worked_at)
        self.next_look = self._maintenance.next_look
        return why

    def may_have_news(self) -> bool:
        """Tell whether another connection has written since this was last asked."""
        seen, self._seen = self._seen, data_version(self.connection)
        return self._seen != seen

    def tell(self, stuck: Collection[int]) -> None:
        """Write how the Foreman is into the lock."""
        self.lock.tell(workers=self.settings.NUM_WORKERS, stuck=stuck)

    def leave_to_parent(self) -> None:
        """Close the lock, which a child would keep."""
        self.lock.close()

    def leave(self) -> None:
        """The lock is gone with the process."""


def host_for(connection: BaseDatabaseWrapper) -> type[Host]:
    """Return the Host for a database."""
    if connection.vendor not in ADAPTERS:
        return SqliteHost
    host: type[Host] = adapter(connection, "host").PostgresHost
    return host
