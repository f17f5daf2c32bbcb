"""As `before.py`, with Snappea."""

from django.db import transaction
from shop.ledger import note, unsteady

from snappea import shared_task


@shared_task
def welcome(name):
    note(f"welcome {name}")


@shared_task(bind=True, max_retries=2)
def fetch(self, url):
    try:
        unsteady(f"fetch {url}")
    except OSError as error:
        note(f"retry {self.request.retries + 1}")
        raise self.retry(exc=error, countdown=0.2)


@shared_task(autoretry_for=(OSError,), max_retries=1, default_retry_delay=0.2, acks_late=True)
def sync(stock):
    unsteady(f"sync {stock}")


@shared_task(result_ttl=3600)
def total(prices):
    return sum(prices)


@shared_task
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
