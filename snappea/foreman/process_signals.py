"""SIGTERM and SIGINT: counted, and nothing else; the Foreman looks at the count."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_HANDED_ON = "SNAPPEA_SIGNALS"  # pid and descriptor, for the process's next image


class ProcessSignals:
    """Counts the signals that came while a block ran."""

    def __init__(self) -> None:
        self.signals = 0
        self._is_handed_on = False

    @contextmanager
    def paid(self, wakeup_fd: int, after_fork: Callable[[], None]) -> Iterator[None]:
        """Count signals, and write each to a descriptor.

        In a child that a task forks signals end the process again, and `after_fork` is called.
        """

        def count(_number: int, _frame: FrameType | None) -> None:
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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)  # now those come in that waited
        try:
            yield
        finally:
            if not self._is_handed_on:
                signal.set_wakeup_fd(-1)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def hand_on(self, reader_fd: int) -> None:
        """Leave signals to the process's next image, whose Attention counts them once it is paid.

        They wait, blocked, for this thread to become that image. Another thread may still take one;
        then it stands in the wakeup descriptor, whose other end, `reader_fd`, the next image inherits.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)
        os.set_inheritable(reader_fd, True)
        os.environ[_HANDED_ON] = f"{os.getpid()} {reader_fd}"
        self._is_handed_on = True


def _taken_before() -> int:
    """Return how many signals came to the last image of this process after it had looked."""
    taken = b""
    pid, _, descriptor = os.environ.pop(_HANDED_ON, "").partition(" ")
    if pid == str(os.getpid()):
        try:
            taken = os.read(int(descriptor), 65536)
        except BlockingIOError:
            pass  # there were none
        os.close(int(descriptor))
    return sum(taken.count(number) for number in _NUMBERS)
