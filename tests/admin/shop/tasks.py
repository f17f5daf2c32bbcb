"""The shop's tasks."""

import asyncio
import logging
import time

from snappea import current_task, task

log = logging.getLogger(__name__)


class OutOfStock(Exception):
    """There are not enough of them."""


class CardDeclined(Exception):
    """The bank has answered, but not as one would wish."""


@task(max_retries=3, default_retry_delay=0.05, autoretry_for=(CardDeclined,), keep_log=True)
def charge(order: int, customer: str, *, cents: int = 0) -> None:
    """Charge a customer's card."""
    log.info("charging %d cents for order %d", cents, order)
    try:
        raise TimeoutError("the bank has not answered within 5 s")
    except TimeoutError:
        log.warning("asking the bank of %s again", customer, exc_info=True)
    log.error("the bank refused: <script>alert(1)</script> insufficient funds")
    raise CardDeclined(f"the card of {customer} was declined for order {order}")


@task
def ship(order: int, parcels: int = 1) -> None:
    """Tell the carrier to fetch an order."""
    raise OutOfStock(f"<b>{order}</b>: only {parcels - 1} of {parcels} parcels are in stock")


@task(queue="reports", result_ttl=3600)
def count_orders(year: int, month: int) -> dict[str, int]:
    """Count the orders of a month."""
    return {"orders": year * month, "parcels": 7}


@task(soft_time_limit=900, keep_log=True)
def pack(order: int) -> None:
    """Pack an order slowly, and report how far it is."""
    for done in range(600):
        current_task.progress(done, 600, note=f"parcel {done}")
        log.info("parcel %d of order %d is packed", done, order)
        time.sleep(1)


@task
async def watch(carrier: str) -> None:
    """Listen to a carrier's events."""
    await asyncio.sleep(600)


@task(isolate=True)
def render_label(order: int) -> None:
    """Render a label in a process of its own."""
    time.sleep(600)


@task(sensitive=True)
def send_password(address: str, password: str) -> None:
    """Mail a password."""
    raise OutOfStock(password)


@task(schedulable=True)
def remind(customer: str, *, days: int = 7) -> None:
    """Remind a customer of a cart."""
    if days < 2:
        raise OutOfStock(customer)


@task(every=3600)
def clean_up() -> None:
    """Delete old carts."""


@task(max_concurrency=1)
def sync_stock(warehouse: str) -> None:
    """Compare the stock with a warehouse."""
    time.sleep(600)


@task(name="shop.tasks.a_task_whose_name_is_much_longer_than_any_column_of_a_table_would_like_to_be")
def long_name(text: str) -> None:
    """Have a long name, and long arguments."""
    raise ValueError(text)


@task
def resize(photo: int) -> None:
    """Resize a photo."""
    time.sleep(0.1)
    if photo % 40 == 7:
        raise ValueError(f"photo {photo} is broken")


@task
def publish(album: str) -> None:
    """Put an album online."""
