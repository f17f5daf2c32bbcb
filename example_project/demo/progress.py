"""How far the spike is: bars on a terminal, a line now and then elsewhere."""

import os
import shutil
import time

from django.core.management.base import OutputWrapper

EVERY = 2.0
WIDTH = 40
BESIDE_BAR = 36


class Progress:
    """Of `total` events."""

    def __init__(self, out: OutputWrapper, total: int) -> None:
        self._out = out
        self._total = total
        self._is_live = out.isatty() and os.environ.get("TERM") != "dumb"
        self._is_drawn = False
        self._next_line = 0.0

    def show(self, sent: int, digested: int, is_last: bool = False) -> None:
        """Show the numbers."""
        if self._is_live:
            above = "\x1b[2F" if self._is_drawn else ""
            self._out.write(f"{above}{self._bar('sent', sent)}\n{self._bar('digested', digested)}")
            self._out.flush()
            self._is_drawn = True
        elif is_last or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + EVERY
            self._out.write(f"sent {sent:,} of {self._total:,}, digested {digested:,}")
            self._out.flush()

    def _bar(self, label: str, number: int) -> str:
        width = max(0, min(WIDTH, shutil.get_terminal_size().columns - BESIDE_BAR))
        filled = width * number // self._total
        bar = "#" * filled + "." * (width - filled)
        return f"\r  {label:9}[{bar}] {number:,} of {self._total:,}\x1b[K"
