"""Tasks that may be repeated after a crash, and tasks that may not. Each harmful line is marked."""

import asyncio
from pathlib import Path

from django.contrib.auth.models import Group
from django.core.mail import send_mail
from django.db import connections, transaction

from snappea import current_task, step, task

from .tasks import record


@task
def pay(order: int) -> None:
    """Pay at most once: all is in one transaction."""
    with transaction.atomic():
        _made, is_new = Group.objects.get_or_create(name=f"order {order}")
        for part in range(3):
            if is_new:
                Group.objects.create(name=f"part {part}")


@task
def pay_twice(order: int) -> None:
    """Pay again after a crash."""
    names = [f"order {order}", "part"]
    for name in names:
        add(name)
    with transaction.atomic():
        add("paid")


def add(name: str) -> None:
    """Add a group, whether there is one or not."""
    number = Group.objects.count()
    Group.objects.create(name=f"{name} {number}")  # harm: pay_twice
    assert name


@task
def raise_twice() -> None:
    """Be unable to run again."""
    Group.objects.create(name="only one")  # harm: raise_twice
    Group.objects.count()


@task
def mail_twice() -> None:
    """Send a mail, and mark that it was sent too late."""
    if not Group.objects.filter(name="sent").exists():
        send_mail("Paid", "Thank you", "shop@example.com", ["ada@example.com"])  # harm: mail_twice
        Group.objects.create(name="sent")


@task
def call_twice() -> None:
    """Enqueue a call in a transaction, which does not hold it back."""
    with transaction.atomic():
        Group.objects.get_or_create(name="called")
        record.delay("x")  # harm: call_twice
    Group.objects.count()


@task
def step_twice() -> None:
    """Do harm in a step: a crash before its result is kept repeats it."""
    step("first", count_up)
    step("second", count_up_once)


def count_up_once() -> int:
    """Be a step that may be repeated."""
    return Group.objects.get_or_create(name="second")[0].pk


def count_up() -> int:
    """Be a step that may not."""
    return Group.objects.create(name=f"first {Group.objects.count()}").pk  # harm: step_twice


@task
async def write_twice(path: str) -> None:
    """Append to a file, on an event loop."""
    append(path)
    await asyncio.sleep(0)


def append(path: str) -> None:
    """Append a line."""
    with Path(path).open("a") as file:  # harm: write_twice
        file.write("line\n")


@task
def write_raw() -> None:
    """Write into a table of the queue's database."""
    with connections["snappea"].cursor() as cursor:
        cursor.execute("INSERT INTO note VALUES (1)")  # harm: write_raw
        cursor.execute("SELECT 1")


@task(autoretry_for=(ValueError,), default_retry_delay=60)
def retry_once() -> None:
    """Fail once, and count its attempts."""
    Group.objects.get_or_create(name="retried")
    if current_task.attempt == 1:
        raise ValueError("not yet")
