"""As `before.py`, with Snappea."""

from django.db import transaction
from shop.ledger import note, unsteady

from snappea import Retry, current_task, task


@task
def welcome(name):
    note(f"welcome {name}")


@task(max_retries=2)
def fetch(url):
    try:
        unsteady(f"fetch {url}")
    except OSError:
        note(f"retry {current_task.attempt}")
        raise Retry(countdown=0.2)


@task(autoretry_for=(Exception,), max_retries=1, default_retry_delay=0.2, priority=10)
def sync(stock):
    unsteady(f"sync {stock}")


@task(result_ttl=3600)
def total(prices):
    return sum(prices)


@task(cron="* * * * *", timezone="UTC")
def tidy():
    note("tidy")


def call_all():
    note("called")
    welcome.delay("ada")
    welcome.apply_async(("later",), countdown=1)
    with transaction.atomic():
        welcome.delay_on_commit("committed")
    fetch.delay("prices")
    sync.delay("stock")
    note(f"total {total.delay([1, 2, 3]).get(timeout=60)}")
