"""A wall clock that can be set: an app, for processes of a site that are to go by it."""

import os
import time
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings

from snappea.queue import clock


class Clock:
    """Stands in for `time` in `snappea.queue.clock`, where the queue's only wall clock is."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def time_ns() -> int:
        """Return the time, as far off as the site's file says."""
        return time.time_ns() + int(offset(settings.DIR) * 10**9)


class SettableClock(AppConfig):
    """With `SNAPPEA_TEST_APPS=tests.clock.SettableClock` a process goes by the site's clock."""

    name = "tests.clock"

    def ready(self) -> None:
        """Put the clock in."""
        vars(clock)["time"] = Clock


def offset(directory: Path) -> float:
    """Return by how many seconds a site's clock is ahead."""
    try:
        return float((directory / "offset").read_text())
    except FileNotFoundError:
        return 0.0


def set_clock(directory: Path, seconds: float) -> None:
    """Let a site's clock be so many seconds ahead, from one moment to the next."""
    new = directory / "offset-new"
    new.write_text(str(seconds))
    os.replace(new, directory / "offset")
