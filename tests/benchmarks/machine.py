"""The machine and the versions with which the figures were measured."""

import os
import platform
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

from snappea.queue.files import file_system

from .processes import TICKS
from .systems.base import System


def machine(directory: Path, systems: Iterable[System]) -> Iterator[str]:
    """Yield lines that describe the machine and name the versions."""
    cores = len(os.sched_getaffinity(0))
    yield f"{date.today()}: {cores} cores ({_processor()}), {platform.system()} {platform.release()};"
    yield f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version},"
    kind = file_system(str(directory)) or "an unknown file system"
    yield f"{', '.join(_versions(systems))}; files on {kind}."


class Disturbance:
    """How much of the machine other processes use, from the creation of this object on."""

    def __init__(self) -> None:
        self._busy, self._total = self._seconds()

    def share(self, ours: float) -> float:
        """Return their share of the processor time, including steal.

        This process, its children, and `seconds` of other processes of ours do not count.
        """
        busy, total = self._seconds()
        return max(busy - self._busy - ours, 0.0) / max(total - self._total, 1e-6)

    def _seconds(self) -> tuple[float, float]:
        fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
        user, nice, system, idle, wait, *interrupts = (int(ticks) / TICKS for ticks in fields)
        busy = user + nice + system + sum(interrupts)
        return busy - sum(os.times()[:4]), busy + idle + wait


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions(systems: Iterable[System]) -> list[str]:
    """Return the packages that are installed for the systems."""
    wanted = dict.fromkeys(requirement for system in systems for requirement in system.requirements)
    return [" ".join(requirement.split("==")) for requirement in wanted]
