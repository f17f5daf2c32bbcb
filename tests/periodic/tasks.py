"""Tasks that are enqueued by themselves, for the tests that install this app."""

from datetime import timedelta

from snappea import task
from tests.playground.ledger import note


@task(every=timedelta(seconds=0.2))
def often() -> None:
    """Note that it ran."""
    note("often")


@task(cron="30 2 * * *", timezone="Europe/Amsterdam", catch_up=False, queue="nights")
def nightly() -> None:
    """Do nothing."""
