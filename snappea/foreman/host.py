"""The workshop: what a Foreman has around him, for himself alone, beside the database's file."""

import sqlite3
from collections.abc import Collection
from typing import Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import Settings
from ..queue import logbook, recovery
from ..queue.database import RawConnection, data_version
from ..queue.files import QueueFile
from ..queue.lock import Lock
from ..queue.logbook import Logbook
from ..queue.records import Recovered
from ..queue.wakeup import Bell, FileBell
from ..workers.processes.fork_server import ForkServer
from ..workers.threads import most_at_once
from .maintenance import Maintenance, local_file
from .prefetch import MOST_AHEAD


class Care(Protocol):
    """Looks after what a Foreman works with."""

    #: When look() is to be called again, by time.monotonic().
    next_look: float

    def note_work(self) -> None:
        """Take notice of a round."""

    def look(self) -> str:
        """Return why the Foreman must stop, or "" if it need not. Raises one of FAULTS."""


class SqliteHost:
    """The files beside a SQLite database. What needs to be known of it is asked here, and of nobody else."""

    #: Whether others may be at work on the same queue.
    is_shared = False
    #: At most so many tasks are claimed before there is a worker for them.
    most_ahead = MOST_AHEAD
    file: QueueFile
    bell: Bell
    logbook: Logbook
    maintenance: Care

    def __init__(
        self, connection: BaseDatabaseWrapper, settings: Settings, fork_server: ForkServer | None
    ) -> None:
        """Raises CannotStart if no Foreman could work with the database."""
        self.connection = connection
        self.settings = settings
        self.fork_server = fork_server
        self._seen: int | None = -1
        self._find()

    def _find(self) -> None:
        self.file = local_file(self.connection)
        #: What the queue's database is called.
        self.name = self.file.path

    def enter(self) -> None:
        """Be the only one, from now on. Raises CannotStart if another one is at work."""
        self.lock = Lock(self.file)
        if self.fork_server:
            self.fork_server.keep(self.lock.descriptor)

    def recover(self, db: RawConnection, moment: str) -> list[Recovered]:
        """Settle what a dead Foreman left, in a transaction."""
        return recovery.recover(db, moment, logbook.read(self.file))

    def equip(self) -> None:
        """Get ready to work. Raises OSError."""
        self.bell = FileBell(self.file)
        self.logbook = Logbook(self.file, self._cells())
        self.maintenance = Maintenance(self.connection, self.file, self.lock, self.bell, self.fork_server)

    def _cells(self) -> int:
        """Return how many cells are needed: what ended keeps its own while its successors are claimed."""
        return 2 * (most_at_once(self.settings) + self.most_ahead)

    def facts(self) -> str:
        """Return what is worth knowing of the database, in words."""
        return f"synchronous {self.settings.SYNCHRONOUS}, SQLite {sqlite3.sqlite_version}"

    def require_intact(self) -> None:
        """End the process at once if a task has closed its descriptors."""
        self.lock.require_open()

    def mend(self) -> None:
        """Connect again if the connection is lost. Raises one of FAULTS if that cannot be done."""

    def may_have_news(self) -> bool:
        """Tell whether somebody has written since this was last asked."""
        seen, self._seen = self._seen, data_version(self.connection)
        return self._seen is None or self._seen != seen

    def tell(self, stuck: Collection[int]) -> None:
        """Let others know how the Foreman is. `stuck`: the ids of tasks that should have ended."""
        self.lock.tell(workers=self.settings.NUM_WORKERS, stuck=stuck)

    def leave_to_parent(self) -> None:
        """Let go of what is not for a child that a task has forked."""
        self.lock.close()

    def leave(self) -> None:
        """Be gone, for others to see."""
