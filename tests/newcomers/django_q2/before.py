"""For django-q2."""

from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import async_task, result, schedule
from shop.ledger import note, unsteady


def welcome(name):
    note(f"welcome {name}")


def fetch(url):
    unsteady(f"fetch {url}")


def total(prices):
    return sum(prices)


def tidy():
    note("tidy")


def fetched(task):
    note(f"hook {task.success}")


def call_all():
    note("called")
    async_task("shop.tasks.welcome", "ada")
    when = timezone.now() + timedelta(seconds=1)
    schedule("shop.tasks.welcome", "later", schedule_type=Schedule.ONCE, next_run=when)
    with transaction.atomic():
        transaction.on_commit(lambda: async_task(welcome, "committed"))
    async_task(fetch, "prices", hook="shop.tasks.fetched", timeout=30)
    schedule("shop.tasks.tidy", schedule_type=Schedule.MINUTES, minutes=1)
    note(f"total {result(async_task(total, [1, 2, 3]), wait=60_000)}")
