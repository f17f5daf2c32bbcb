"""The demo's directory, with its databases, mails and logs."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from example_project.settings import DATA_DIR

#: The files that the demo creates and deletes there.
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
    """Another process uses the directory."""


@contextmanager
def occupied() -> Iterator[Path]:
    """Lock the directory while the block runs, after deleting the files of earlier runs. Raises Occupied."""
    with _locked(DATA_DIR / "demo.lock", "Another demo runs"):
        foremans = DATA_DIR / "snappea.sqlite3-lock"
        if foremans.exists():
            with _locked(foremans, "A Foreman runs"):
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
