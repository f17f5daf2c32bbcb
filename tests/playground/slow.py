"""A module that takes its time; it is no tasks.py, so the first worker that needs it imports it."""

import time

from snappea import task

from .ledger import note

time.sleep(0.3)


@task
def record_slowly_imported(key: str) -> None:
    """Note that it ran."""
    note("end", key)
