"""The tasks of the life. The keys of those that may run twice begin with "late"."""

from datetime import timedelta

from django.conf import settings

from snappea import current_task, step, task
from snappea.errors import QueueUnavailable
from tests.playground.ledger import note


def _run(key: str) -> None:
    note("start", key)
    note("end", key)


def _fail(key: str) -> None:
    note("raised", key)
    raise ValueError(f"no luck with {key}")


@task
def record(key: str) -> None:
    """Succeed."""
    _run(key)


@task(acks_late=True)
def record_late(key: str) -> None:
    """Succeed; may be repeated."""
    _run(key)


@task(queue="mail")
def mail(key: str) -> None:
    """Belong to a queue that is paused."""
    _run(key)


@task(queue="mail", max_concurrency=1)
def mail_alone(key: str) -> None:
    """Belong to that queue, and run alone."""
    _run(key)


@task(unique=True)
def record_once(key: str) -> None:
    """Be alone while waiting."""
    _run(key)


@task(unique_for=3600)
def record_hourly(key: str) -> None:
    """Be enqueued once an hour."""
    _run(key)


@task(max_concurrency=1)
def record_alone(key: str) -> None:
    """Run alone."""
    _run(key)


@task(result_ttl=600)
def answer(key: str) -> str:
    """Return a result, which is kept."""
    _run(key)
    return key


@task(every=timedelta(hours=1))
def tick() -> None:
    """Belong to a schedule."""
    _run("tick")


@task
def fail(key: str) -> None:
    """Fail while the file "broken" is there, or for ever."""
    note("start", key)
    if key != "again" or (settings.DIR / "broken").exists():
        _fail(key)
    note("end", key)


@task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
def work(key: str) -> None:
    """Take a step, fail, and succeed at the second attempt."""
    _work(key)


@task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0, acks_late=True)
def work_late(key: str) -> None:
    """Do the same; may be repeated."""
    _work(key)


def _work(key: str) -> None:
    note("start", key)
    try:
        step("first", note, "step", key)
    except QueueUnavailable:  # the disk refuses it
        note("raised", key)
        raise
    note("kept", key)
    if current_task.attempt == 1:
        _fail(key)
    note("end", key)
