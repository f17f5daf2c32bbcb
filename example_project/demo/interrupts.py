"""Ctrl-C and its kin: a signal only sets a flag, so that it can cut nothing in two."""

import signal
import time
from types import FrameType


class Interrupted(Exception):
    """Somebody wants the demo to end."""


class Interrupts:
    """Takes SIGINT, SIGTERM and SIGHUP over for the rest of the process."""

    def __init__(self) -> None:
        self._wanted = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._wanted = True

    def heed(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._wanted:
            raise Interrupted

    def pause(self, seconds: float) -> None:
        """Sleep for a moment. Raises Interrupted if a signal has come."""
        self.heed()
        time.sleep(seconds)
        self.heed()
