"""A module as one writes it for django-taskq; only the line that imports shared_task and Retry differs."""

import datetime

from django.utils import timezone

from snappea import Retry, shared_task

from .ledger import note

tries: dict[str, int] = {}


class Hopeless(ValueError):
    """Not worth another try."""


def count(key: str) -> int:
    """Note a start, and return how many there were."""
    tries[key] = tries.get(key, 0) + 1
    note("start", key)
    return tries[key]


@shared_task
def plain(key: str, times: int = 1) -> None:
    """Be a task with nothing else."""
    note("end", key, times)


@shared_task()
def called(key: str) -> None:
    """Be a task by a decorator that was called."""
    note("end", key)


@shared_task(queue="mail")
def mail(key: str) -> None:
    """Wait in a queue of its own."""
    note("end", key)


@shared_task(autoretry_for=(ValueError,), retry_kwargs={"max_retries": 3, "countdown": 0.01})
def fragile(key: str, tries: int) -> None:
    """Fail until it does not."""
    if count(key) < tries:
        raise ValueError(key)
    note("end", key)


@shared_task(
    autoretry_for=(ValueError,),
    dont_autoretry_for=(Hopeless,),
    retry_kwargs={"max_retries": 3},
    retry_backoff=0.01,
    retry_backoff_max=1,
    retry_jitter=False,
)
def backing_off(key: str, hopeless: bool = False) -> None:
    """Fail, hopelessly or once."""
    if count(key) == 1:
        raise Hopeless(key) if hopeless else ValueError(key)
    note("end", key)


@shared_task(default_retry_delay=0.01)
def by_hand(key: str, limit: int) -> None:
    """Catch what goes wrong, and try again by hand."""
    count(key)
    try:
        raise KeyError(key)
    except KeyError as error:
        by_hand.retry(exc=error, countdown=0.01, max_retries=limit)


@shared_task
def raising(key: str) -> None:
    """Raise Retry itself."""
    if count(key) == 1:
        raise Retry(exc=KeyError(key), countdown=0.01, max_retries=1)
    note("end", key)


@shared_task
def enqueue_all() -> None:
    """Enqueue the others in all the ways there are."""
    plain.delay("delay", times=2)
    plain.apply_async(("args",))
    plain.apply_async(args=("args-and-kwargs",), kwargs={"times": 3})
    plain.apply_async(kwargs={"key": "kwargs", "times": 4}, ignore_result=True, add_to_parent=False)
    plain.s("signature").delay()
    plain.s("signature-in-a-queue").set(queue="mail").apply_async(countdown=0)
    called.apply_async(args=["countdown"], countdown=0.3)
    called.apply_async(args=["eta"], eta=timezone.now() + datetime.timedelta(seconds=0.3))
    called.apply_async(args=["expires"], expires=60)
    called.apply_async(args=["expired"], countdown=3600, expires=0.1)
    called.apply_async(args=["queue"], queue="mail")
    called.apply_async(args=["revoked"], countdown=3600).revoke()
    mail.delay("mail")
