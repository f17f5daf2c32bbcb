"""What is enqueued: each function a task of the system under test, whose workers find them here by name."""

import os
import time
from pathlib import Path

from .systems import SYSTEMS

directory = Path(os.environ["BENCHMARK_DIRECTORY"])
system = SYSTEMS[os.environ["BENCHMARK_SYSTEM"]]
system.set_up(directory)
#: The named pipe through which tasks tell what they measured.
PIPE = directory / "told"


def tell(*figures: float) -> None:
    """Write a line that whoever measures reads at once."""
    pipe = os.open(PIPE, os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, " ".join(map(repr, figures)).encode() + b"\n")
    os.close(pipe)


@system.task
def nothing(number: int) -> None: ...


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
