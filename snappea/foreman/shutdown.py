"""When the Foreman stops, for good or to restart: after SIGTERM, SIGINT, an empty queue, MAX_TASKS ..."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR, INFO
from types import FrameType

from ..conf import Settings
from ..log import say
from .in_flight import InFlight
from .restart import Restart
from .systemd import STOPPING, notify

#: The same as the first SIGTERM, whichever comes first: for a parent that cannot know what others send.
STOP = signal.SIGUSR2
_NUMBERS = (signal.SIGTERM, signal.SIGINT, STOP)
_HANDED_ON = "SNAPPEA_SIGNALS"  # pid and descriptor, for the process after its restart


class Shutdown:
    """Counts signals, and decides whether to stop."""

    def __init__(self, settings: Settings, in_flight: InFlight, restart: Restart, drains: bool) -> None:
        self._settings = settings
        self._in_flight = in_flight
        self._restart = restart
        #: Whether to stop once the queue is empty.
        self.drains = drains
        self._restarts = self._is_handed_on = self._absorbs = False
        self.exit_code = 0
        #: How many SIGTERM and SIGINT have arrived; a STOP and the first of them are one.
        self.signals = 0
        #: Until when to wait for running tasks, by time.monotonic(); None while the Foreman does not stop.
        self.stop_by: float | None = None

    @property
    def is_to_restart(self) -> bool:
        """Whether the Foreman stops to restart, and no signal has arrived."""
        return self._restarts and not self.signals

    def is_done(self) -> bool:
        """Return whether there is nothing left to wait for."""
        if self.stop_by is None:
            return False
        return not self._in_flight.claims or self.signals >= 2 or time.monotonic() >= self.stop_by

    def decide(self, is_idle: bool, backlog: int) -> bool:
        """Stop, or cancel a restart, if there is a reason. Return whether to look at the queue again.

        `is_idle`: nothing is ready and nothing runs. `backlog`: how many tasks are about to start.
        """
        signals, restart = self.signals, self._restart
        is_called_off = self._restarts and bool(signals)
        if is_called_off:
            self._restarts, self.stop_by = False, None
        if signals == 1 and self._settings.WORKAHOLIC and not self.drains:
            self.drains = True  # empty the queue first
            restart.most = sys.maxsize  # MAX_TASKS is ignored from now on
            return True
        is_patient = self.drains and (self._settings.WORKAHOLIC or not signals) and signals < 2
        if is_idle if is_patient else signals:
            self.stop("a signal was received" if signals else "the queue is empty")
        if self._in_flight.started >= restart.most and not backlog and not restart.due:
            restart.due = f"it has started {restart.most} tasks (MAX_TASKS)"
        if restart.due and not signals and self.stop_by is None:
            self._restarts = True
            self.stop(f"to restart, because {restart.due}")
        return is_called_off

    def stop(self, why: str, exit_code: int = 0) -> None:
        """Claim no more tasks, give back those that have not begun, and wait for the rest.

        Does nothing if it stops already.
        """
        if self.stop_by is not None:
            return
        self.exit_code, timeout = exit_code, self._settings.GRACEFUL_TIMEOUT
        self.stop_by = time.monotonic() + timeout
        if not self._restarts:
            notify(STOPPING)
        said = "Stopping: %s. Waiting up to %g s for %d tasks; another signal ends that."
        say(ERROR if exit_code else INFO, said, why, timeout, self._in_flight.count_running())

    @contextmanager
    def count_signals(self, wakeup_fd: int, after_fork: Callable[[], None]) -> Iterator[None]:
        """Count signals in a `with` block, and write each to a descriptor.

        In a child that a task forks, signals end the process as usual, and `after_fork` is called.
        """

        def count(number: int, _frame: FrameType | None) -> None:
            if number == STOP:
                self._absorbs |= not self.signals
                self.signals = max(self.signals, 1)
            elif self._absorbs:
                self._absorbs = False
            else:
                self.signals += 1

        def leave_to_parent() -> None:
            signal.set_wakeup_fd(-1)
            for number in _NUMBERS:
                signal.signal(number, signal.SIG_DFL)
            after_fork()

        os.register_at_fork(after_in_child=leave_to_parent)
        before = {number: signal.signal(number, count) for number in _NUMBERS}
        signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
        self.signals += _taken_before()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)  # those from before the restart arrive now
        try:
            yield
        finally:
            if not self._is_handed_on:
                signal.set_wakeup_fd(-1)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def hand_on_signals(self, reader_fd: int) -> None:
        """Leave signals to the process after its restart, which counts them in count_signals().

        They stay blocked until then. If another thread still takes one, it is in the wakeup descriptor: the
        restarted process inherits its other end, `reader_fd`. Only a signal that a thread has taken, but not
        yet written there when execv() ends the thread, is lost: a matter of microseconds. Blocking signals in
        all threads would prevent that, but programs that tasks start would inherit it.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)
        os.set_inheritable(reader_fd, True)
        os.environ[_HANDED_ON] = f"{os.getpid()} {reader_fd}"
        self._is_handed_on = True


def _taken_before() -> int:
    """Return how many signals arrived before the restart, too late to be handled then."""
    taken = b""
    pid, _, descriptor = os.environ.pop(_HANDED_ON, "").partition(" ")
    if pid == str(os.getpid()):
        try:
            taken = os.read(int(descriptor), 65536)
        except BlockingIOError:
            pass  # none
        os.close(int(descriptor))
    return sum(taken.count(number) for number in _NUMBERS)
