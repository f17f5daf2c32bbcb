"""As `before.py`, with Snappea."""

from django.db import transaction
from shop.ledger import note

from snappea import shared_task


@shared_task
def welcome(name):
    note(f"welcome {name}")


@shared_task
def crash():
    note("crash")
    raise ValueError("crash")


def call_all():
    note("called")
    welcome.delay("ada")
    crash.delay()
    with transaction.atomic():
        welcome.delay_on_commit("committed")
