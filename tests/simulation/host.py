"""The Foreman's host: the real files beside the database, and a bell without descriptors."""

from typing import Protocol

from snappea.foreman.sqlite_host import SqliteHost
from snappea.queue.logbook import Logbook
from snappea.queue.wakeup import LOOK_EVERY, Bell

from .timeline import Timeline

#: How long it takes until a wakeup wakes, in seconds.
LATENCY = 0.00005


class Owner(Protocol):
    """Sees what the Foreman does."""

    timeline: Timeline

    def opened(self) -> None:
        """The Foreman has settled what the last one left."""

    def asleep(self) -> None:
        """The Foreman is about to sleep."""


class SimulatedBell(Bell):
    """Rings for the Foreman's process."""

    wakeup_fd = reader_fd = -1

    def __init__(self, owner: Owner) -> None:
        self._owner, self._timeline, self._foreman = owner, owner.timeline, owner.timeline.main
        self._is_nudged = self._has_rung = False
        self._waits_for_rings: bool | None = None

    @property
    def patience(self) -> float:
        return LOOK_EVERY

    @property
    def kind(self) -> str:
        return "simulation"

    def install(self) -> None:
        """Watch: there is nothing to watch."""

    def nudge(self) -> None:
        self._is_nudged = True
        if self._waits_for_rings is not None:
            self._timeline.wake(self._foreman, LATENCY)

    def ring(self) -> None:
        """Be rung by another process."""
        self._has_rung = True
        if self._waits_for_rings:
            self._timeline.wake(self._foreman, LATENCY)

    def wait(self, timeout: float, for_rings: bool = True) -> bool:
        if not self._is_nudged and not (for_rings and self._has_rung):
            self._owner.asleep()
            self._waits_for_rings = for_rings
            try:
                self._timeline.pause(max(timeout, 0.0) + 0.0005)
            finally:
                self._waits_for_rings = None
        rang = for_rings and self._has_rung
        self._is_nudged = False
        if for_rings:
            self._has_rung = False
        return rang

    def close(self) -> None:
        """Close nothing."""


class SimulatedHost(SqliteHost):
    """Has that bell. The lock, the logbook and the checks of the files are real."""

    owner: Owner
    bell: SimulatedBell  # type: ignore[assignment]  # a FileBell there

    def equip(self) -> None:
        self.bell = SimulatedBell(self.owner)
        self.logbook = Logbook(self.file, self._cells())
        self._configure()
        self.owner.opened()

    def bury(self) -> None:
        """Do what the kernel does when the process is gone. The logbook's file stays."""
        for part in ("lock", "logbook"):
            if hasattr(self, part):
                getattr(self, part).close()
