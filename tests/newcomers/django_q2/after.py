"""As `before.py`, with Snappea."""

from datetime import timedelta

from django.db import transaction
from django.dispatch import receiver
from django.utils import timezone
from shop.ledger import note, unsteady

from snappea import task
from snappea.signals import task_retried, task_succeeded


@task
def welcome(name):
    note(f"welcome {name}")


@task(autoretry_for=(Exception,), max_retries=None, default_retry_delay=1, time_limit=30)
def fetch(url):
    unsteady(f"fetch {url}")


@task(result_ttl=3600)
def total(prices):
    return sum(prices)


@task(every=timedelta(minutes=1))
def tidy():
    note("tidy")


@receiver(task_retried, sender=fetch)
@receiver(task_succeeded, sender=fetch)
def fetched(signal, **facts):
    note(f"hook {signal is task_succeeded}")


def call_all():
    note("called")
    welcome.delay("ada")
    when = timezone.now() + timedelta(seconds=1)
    welcome.apply_async(("later",), eta=when)
    with transaction.atomic():
        welcome.delay_on_commit("committed")
    fetch.delay("prices")
    note(f"total {total.delay([1, 2, 3]).get(timeout=60)}")
