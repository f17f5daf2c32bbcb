"""For Huey, with djhuey."""

from django.db import transaction
from huey import crontab
from huey.contrib.djhuey import db_task, on_commit_task, periodic_task, task
from huey.exceptions import RetryTask
from shop.ledger import note, unsteady


@db_task()
def welcome(name):
    note(f"welcome {name}")


@on_commit_task()
def welcome_on_commit(name):
    note(f"welcome {name}")


@task(retries=2, context=True)
def fetch(url, task=None):
    try:
        unsteady(f"fetch {url}")
    except OSError:
        note(f"retry {3 - task.retries}")
        raise RetryTask(delay=0.2)


@task(retries=1, retry_delay=0.2, priority=10)
def sync(stock):
    unsteady(f"sync {stock}")


@task()
def total(prices):
    return sum(prices)


@periodic_task(crontab(minute="*"))
def tidy():
    note("tidy")


def call_all():
    note("called")
    welcome("ada")
    welcome.schedule(("later",), delay=1)
    with transaction.atomic():
        welcome_on_commit("committed")
    fetch("prices")
    sync("stock")
    note(f"total {total([1, 2, 3])(blocking=True, timeout=60)}")
