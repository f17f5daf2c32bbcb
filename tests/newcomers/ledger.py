"""What has run, in a file, with the time. The same for all samples."""

import os
import time
from pathlib import Path


def note(text: str) -> int:
    """Note something, and return how often it was noted by now."""
    path = Path(os.environ["LEDGER"])
    with path.open("a") as ledger:
        ledger.write(f"{time.time():.3f} {text}\n")
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()].count(text)


def unsteady(text: str) -> None:
    """Note something, and fail the first time."""
    if note(text) == 1:
        raise OSError(text)
