"""The directory for what the demo makes: its databases, mails and logs."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from example_project.settings import DATA_DIR

#: All that the demo makes there, and all that it deletes there.
MADE = [
    "tracker.sqlite3",
    "tracker.sqlite3-*",
    "snappea.sqlite3",
    "snappea.sqlite3-*",
    "mails/*.eml",
    "gunicorn.log",
    "foreman.log",
    "spike.log",
]


class Occupied(Exception):
    """Somebody else works there."""


@contextmanager
def occupied() -> Iterator[Path]:
    """Hold the directory, swept, for as long as the block runs. Raises Occupied."""
    with _locked(DATA_DIR / "demo.lock", "Another demo is at work"):
        foremans = DATA_DIR / "snappea.sqlite3-lock"
        if foremans.exists():
            with _locked(foremans, "A Foreman is at work"):
                pass
        for pattern in MADE:
            for path in DATA_DIR.glob(pattern):
                if path.is_file():
                    path.unlink()
        yield DATA_DIR


@contextmanager
def _locked(path: Path, otherwise: str) -> Iterator[None]:
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Occupied(f"{otherwise} in {path.parent}. Stop it first.") from None
        yield
