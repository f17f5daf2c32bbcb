"""The progress of the spike: bars on a terminal, otherwise a line every two seconds."""

import os
import shutil
import time

from django.core.management.base import OutputWrapper
from django.core.management.color import Style, color_style, no_style

EVERY = 2.0
WIDTH = 40
BESIDE_BAR = 36


def style_for(out: OutputWrapper, is_wanted: bool | None = None) -> Style:
    """Return colors for a terminal, unless NO_COLOR or TERM=dumb is set. `is_wanted` takes precedence."""
    if is_wanted is None:
        is_wanted = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return color_style(force_color=True) if is_wanted else no_style()


class Progress:
    """Shows how many of `total` events were sent and digested."""

    def __init__(self, out: OutputWrapper, style: Style, total: int) -> None:
        self._out = out
        self._style = style
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
        bar = self._style.SUCCESS("#" * filled) + "." * (width - filled)
        return f"\r  {label:9}[{bar}] {number:,} of {self._total:,}\x1b[K"
