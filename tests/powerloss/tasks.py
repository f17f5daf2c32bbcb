"""Tasks that take a step, and succeed at the second try."""

from snappea import current_task, step, task
from tests.playground.ledger import note


@task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
def work(key: str) -> None:
    """Run once, but for the retry."""
    _work(key)


@task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0, acks_late=True)
def work_late(key: str) -> None:
    """Run again after an interruption."""
    _work(key)


def _work(key: str) -> None:
    note("start", key)
    step("first", note, "start", f"{key}/first")
    note("kept", key)
    if current_task.attempt == 1:
        raise ValueError("not yet")
    note("end", key)
