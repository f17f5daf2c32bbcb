"""Tasks with time limits."""

import time
from pathlib import Path

from django.db import connection

from snappea import current_task, task
from snappea.errors import SoftTimeLimitExceeded

from .ledger import note


@task(soft_time_limit=0.3)
def spin(key: str) -> None:
    """Run without end."""
    note("start", key)
    while True:
        pass


@task(soft_time_limit=0.3, result_ttl=60)
def clean_up(key: str) -> str:
    """Run without end, and finish all the same."""
    try:
        while True:
            pass
    except SoftTimeLimitExceeded:
        note("cleaned", key)
    return "finished"


@task(soft_time_limit=0.2, autoretry_for=(SoftTimeLimitExceeded,), default_retry_delay=0, max_retries=2)
def spin_at_first(key: str, attempts: int) -> None:
    """Take too long the first times."""
    note("start", key)
    while current_task.attempt <= attempts:
        pass
    note("end", key)


@task
def spin_unlimited(key: str) -> None:
    """Run without end, but for what its queue or the setting says."""
    note("start", key)
    while True:
        pass


@task(soft_time_limit=0.2)
def wait_outside_python(key: str, path: str) -> None:
    """Read from a named pipe, where no exception arrives."""
    note("start", key)
    Path(path).read_bytes()
    for _ in range(1000):
        pass
    note("too far", key)


@task(soft_time_limit=0.2)
def swallow(key: str, path: str) -> None:
    """Do not let itself be ended before there is a file."""
    note("start", key)
    is_there = False
    while not is_there:
        try:
            time.sleep(0.005)
            is_there = Path(path).exists()
        except SoftTimeLimitExceeded:
            note("swallowed", key)
    note("end", key)


@task(soft_time_limit=100)
def tell_deadline(key: str) -> None:
    """Note in how many seconds it must have ended."""
    assert current_task.deadline
    note("deadline", key, round((current_task.deadline - current_task.enqueued_at).total_seconds()))


@task(soft_time_limit=0.001)
def about_its_limit(number: int) -> None:
    """Take about as long as it may, in Python and in the database."""
    ends = time.monotonic() + number % 40 / 20_000
    while time.monotonic() < ends:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    note("end", number)
