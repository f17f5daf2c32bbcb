"""The departure: when and why the Foreman stops, for good or to restart."""

import time
from logging import ERROR, INFO

from ..conf import Settings
from ..log import say
from .in_flight import InFlight
from .process_signals import ProcessSignals
from .restart import Restart
from .systemd import STOPPING, notify


class Shutdown:
    """Decides by the system's signals and the renewal. `drains`: once the queue is empty."""

    def __init__(
        self,
        settings: Settings,
        in_flight: InFlight,
        process_signals: ProcessSignals,
        restart: Restart,
        drains: bool = False,
    ) -> None:
        self._settings = settings
        self._in_flight = in_flight
        self._process_signals = process_signals
        self._restart = restart
        self.drains = drains
        self.exit_code = 0
        #: Until when it waits for what still runs, by time.monotonic(); None: it does not stop.
        self.stop_by: float | None = None
        self._renews = False

    @property
    def is_decided(self) -> bool:
        """Whether the Foreman stops: nothing more is to be claimed."""
        return self.stop_by is not None

    @property
    def is_to_restart(self) -> bool:
        """Whether the Foreman stopped, or stops, to restart, and no signal says otherwise."""
        return self._renews and not self._process_signals.signals

    def is_done(self) -> bool:
        """Tell whether there is nothing left to wait for."""
        if self.stop_by is None:
            return False
        return (
            not self._in_flight.claims
            or self._process_signals.signals >= 2
            or time.monotonic() >= self.stop_by
        )

    def begins_to_drain(self) -> bool:
        """Heed a first signal with WORKAHOLIC: tell, once, that the queue is to be emptied first."""
        if self.drains or not self._settings.WORKAHOLIC or self._process_signals.signals != 1:
            return False
        self.drains = True
        self._restart.waive()
        return True

    def heed_signals(self, is_idle: bool) -> None:
        """Stop if a signal says so, or if the queue was to be emptied and is."""
        signals = self._process_signals.signals
        is_patient = self.drains and (self._settings.WORKAHOLIC or not signals) and signals < 2
        if is_idle if is_patient else signals:
            self.stop("a signal said so" if signals else "the queue is empty")

    def heed_restart(self, backlog: int) -> bool:
        """Stop to restart. Tell whether that was called off, or a signal says stop for good."""
        why = "" if self._process_signals.signals else self._restart.why(backlog)
        if why and self.stop_by is None:
            self._renews = True
            self.stop(f"to restart, for {why}")
        elif self._renews and not why:
            self._renews, self.stop_by = False, None
            return True
        return False

    def stop(self, why: str, exit_code: int = 0) -> None:
        """Claim no more, give back what has not begun, and wait for the rest; unless that is decided."""
        if self.stop_by is not None:
            return
        self.exit_code = exit_code
        self.stop_by = time.monotonic() + self._settings.GRACEFUL_TIMEOUT
        if not self._renews:
            notify(STOPPING)
        say(
            ERROR if exit_code else INFO,
            "Stopping: %s. Waiting up to %g s for %d tasks; another signal ends that.",
            why,
            self._settings.GRACEFUL_TIMEOUT,
            self._in_flight.count_running(),
        )
