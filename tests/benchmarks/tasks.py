"""The tasks: the workers of the system under test find them here by name."""

import mmap
import os
import time
from pathlib import Path

from .systems import SYSTEMS

directory = Path(os.environ["BENCHMARK_DIRECTORY"])
system = SYSTEMS[os.environ["BENCHMARK_SYSTEM"]]
system.set_up(directory)
#: An object that some of the workers must be given.
app = system.app
#: The named pipe through which tasks report what they measured.
PIPE = directory / "told"


def _shared() -> mmap.mmap:
    with (directory / "ran").open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


#: A byte for each no-op task, which sets it: that takes about 40 ns. The measuring process counts them.
ran = _shared() if (directory / "ran").exists() else None


def tell(*figures: float) -> None:
    """Write a line, which the measuring process reads at once."""
    pipe = os.open(PIPE, os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, " ".join(map(repr, figures)).encode() + b"\n")
    os.close(pipe)


@system.task
def nothing(number: int) -> None:
    ran[number] = 1  # type: ignore[index]  # where tasks run, it is there


@system.task
def mark() -> None:
    tell(time.monotonic())


@system.task
def answer(asked: float) -> None:
    tell(time.monotonic() - asked)


@system.task
def nap(seconds: float) -> None:
    began = time.monotonic()
    time.sleep(seconds)
    tell(began, time.monotonic())
