"""Ctrl-C and similar signals: a signal only sets a flag, so it cannot interrupt a step halfway."""

import signal
import time
from types import FrameType


class Interrupted(Exception):
    """The user wants the demo to end."""


class Interrupts:
    """Handles SIGINT, SIGTERM and SIGHUP for the rest of the process."""

    def __init__(self) -> None:
        self._wanted = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._wanted = True

    def heed(self) -> None:
        """Raise Interrupted if a signal has arrived."""
        if self._wanted:
            raise Interrupted

    def pause(self, seconds: float) -> None:
        """Sleep. Raises Interrupted if a signal has arrived."""
        self.heed()
        time.sleep(seconds)
        self.heed()
