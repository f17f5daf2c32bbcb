"""The Host: the Foreman's lock, logbook, wakeups and checks. There is a Host for each kind of database."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from ..conf import Settings
from ..queue import store
from ..queue.database import RawConnection
from ..queue.logbook import Logbook
from ..queue.records import Claim, Recovered
from ..queue.wakeup import Bell
from ..workers.processes.fork_server import ForkServer
from ..workers.threads import most_at_once
from .admission import SharedLimits
from .round import MOST_AHEAD


class Host(ABC):
    """What the Foreman needs, and what depends on the kind of database."""

    #: The database, as the log names it.
    name: str
    bell: Bell
    logbook: Logbook
    #: The limits that all Foremen share, if there may be several.
    shared: SharedLimits | None = None
    #: Claims as `store.claim()` does, if no gate was opened in the round.
    claim: Callable[..., list[Claim]] = staticmethod(store.claim)
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
    def enter(self, waits: bool = False) -> None:
        """Register this Foreman. If another Foreman runs and only one may, wait, or raise CannotStart."""

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
    def look(self, worked_at: float, is_idle: bool = False) -> str:
        """Do regular maintenance. Return why the Foreman must stop, or "". Raises one of FAULTS.

        `worked_at`: the time of the last round, by time.monotonic(). `is_idle`: no task runs.
        """

    def may_have_news(self) -> bool:
        """Return whether another process may have changed something since the last call."""
        return True

    @abstractmethod
    def tell(self, stuck: Collection[int], queues: Sequence[str], strict: bool) -> None:
        """Publish the Foreman's state. `stuck`: the ids of tasks that should have ended.

        `queues`: the only ones that it serves, if not empty. `strict`: it serves them in this order.
        """

    @abstractmethod
    def leave_to_parent(self) -> None:
        """Close what a child forked by a task must not keep open."""

    @abstractmethod
    def leave(self) -> None:
        """Unregister this Foreman."""

    def _cells(self) -> int:
        # twice as many as tasks: those that ended keep their cells while the next are claimed
        return 2 * (most_at_once(self.settings) + self.most_ahead)
