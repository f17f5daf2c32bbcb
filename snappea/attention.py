"""SIGTERM and SIGINT: counted, and nothing else; the Foreman looks at the count."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Attention:
    """Counts the signals that came while a block ran."""

    def __init__(self) -> None:
        self.signals = 0

    @contextmanager
    def paid(self, wakeup_fd: int, after_fork: Callable[[], None]) -> Iterator[None]:
        """Count signals, and write each to a descriptor.

        In a child that a task forks signals end the process again, and `after_fork` is called.
        """

        def count(_number: int, _frame: FrameType | None) -> None:
            self.signals += 1

        def leave_to_parent() -> None:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            after_fork()

        os.register_at_fork(after_in_child=leave_to_parent)
        before = {number: signal.signal(number, count) for number in (signal.SIGTERM, signal.SIGINT)}
        signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
