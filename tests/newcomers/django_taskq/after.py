"""As `before.py`, with Snappea."""

from django.db import transaction
from shop.ledger import note, unsteady

from snappea import Retry, shared_task


@shared_task
def welcome(name):
    note(f"welcome {name}")


@shared_task
def fetch(url):
    try:
        unsteady(f"fetch {url}")
    except OSError as error:
        fetch.retry(exc=error, countdown=1, max_retries=2)


@shared_task(autoretry_for=(OSError,), retry_kwargs={"max_retries": 1, "countdown": 1})
def sync(stock):
    try:
        unsteady(f"sync {stock}")
    except Retry:
        note("never")


def call_all():
    note("called")
    welcome.delay("ada")
    welcome.apply_async(("later",), countdown=1)
    with transaction.atomic():
        welcome.delay_on_commit("committed")
    fetch.s("prices").apply_async()
    sync.delay("stock")
    welcome.apply_async(("revoked",), countdown=2).revoke()
