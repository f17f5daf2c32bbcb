"""For RQ, with django-rq."""

import time
from datetime import timedelta

import django_rq
from django.db import transaction
from django_rq import job
from rq import Retry, get_current_job
from rq.cron import register
from shop.ledger import note, unsteady


@job
def welcome(name):
    note(f"welcome {name}")


@job("default", retry=Retry(max=2, interval=[1, 2]), timeout=30)
def fetch(url):
    note(f"retry {3 - get_current_job().retries_left}")
    unsteady(f"fetch {url}")


def sync(stock):
    note(f"sync {stock}")


@job("default", result_ttl=3600)
def total(prices):
    return sum(prices)


def tidy():
    note("tidy")


register(tidy, queue_name="default", interval=1)


def call_all():
    note("called")
    welcome.delay("ada")
    django_rq.get_queue().enqueue_in(timedelta(seconds=1), welcome, "later")
    with transaction.atomic():
        welcome.delay("committed")
    fetch.delay("prices")
    django_rq.enqueue(sync, "stock")
    called = total.delay([1, 2, 3])
    while (result := called.return_value(refresh=True)) is None:
        time.sleep(0.01)
    note(f"total {result}")
