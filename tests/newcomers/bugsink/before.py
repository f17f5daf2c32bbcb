"""For the original Snappea, which is a part of Bugsink."""

from bugsink.transaction import delay_on_commit
from django.db import transaction
from shop.ledger import note
from snappea.decorators import shared_task


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
        delay_on_commit(welcome, "committed")
