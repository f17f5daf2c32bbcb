"""As `before.py`, with Snappea."""

from datetime import timedelta

from django.db import transaction
from shop.ledger import note, unsteady

from snappea import current_task, task


@task
def welcome(name):
    note(f"welcome {name}")


@task(autoretry_for=(Exception,), max_retries=2, retry_backoff=1, retry_jitter=False, soft_time_limit=30)
def fetch(url):
    note(f"retry {current_task.attempt}")
    unsteady(f"fetch {url}")


@task
def sync(stock):
    note(f"sync {stock}")


@task(result_ttl=3600)
def total(prices):
    return sum(prices)


@task(every=1)
def tidy():
    note("tidy")


def call_all():
    note("called")
    welcome.delay("ada")
    welcome.apply_async(("later",), countdown=timedelta(seconds=1))
    with transaction.atomic():
        welcome.delay_on_commit("committed")
    fetch.delay("prices")
    sync.delay("stock")
    note(f"total {total.delay([1, 2, 3]).get(timeout=60)}")
