"""Fill the shop's queue: `python -m tests.admin.shop.fill`, while its Foreman runs."""

import math
import random
from datetime import timedelta
from functools import partial

import django
from django.utils import timezone


def main() -> None:
    """Enqueue tasks of each kind, and write two hours of history."""
    django.setup()
    from django.contrib.auth.models import User

    User.objects.create_superuser("boss", password="open sesame")
    _history()
    _tasks()
    _schedules()
    _kept()
    _batches()


def _history() -> None:
    from tests.minutes import write_minute

    chance = random.Random(4)
    for back in range(26 * 60, 0, -1):
        numbers = {}
        for share, name in enumerate(("charge", "ship", "pack", "count_orders"), 1):
            done = int((40 + 30 * math.sin(back / 90)) * chance.random() / share)
            failed = int(chance.random() * 6 / share) if back % 97 < 9 else 0
            numbers[f"tests.admin.shop.tasks.{name}"] = {
                "done": done,
                "failed": failed,
                "wait_sum": done * 0.02,
                "run_sum": done * 0.2,
                "run_max": 3.5,
                "run_times": {-5: done // 2, -3: done - done // 2, 2: failed},
                "wait_times": {-9: done, -1: failed},
            }
        backlog = int(abs(chance.gauss(30, 20))) + (400 if 30 < back < 45 else 0)
        write_minute(back, numbers, backlog, starts=int(back in (50, 700)))


def _tasks() -> None:
    from snappea import queue

    from . import tasks

    tasks.pack.delay(1001)
    tasks.pack.delay(1002)
    tasks.watch.delay("DHL")
    tasks.render_label.delay(1003)
    for warehouse in ("Hamburg", "Köln", "القاهرة"):
        tasks.sync_stock.delay(warehouse)
    for order in range(12):
        tasks.ship.delay(order, parcels=order)
    for order in range(5):
        tasks.charge.delay(order, f"Customer {order}", cents=1999)
    tasks.long_name.delay("no spaces " * 3 + "x" * 300)
    tasks.send_password.delay("a@example.org", "hunter2")
    tasks.count_orders.delay(2026, 11)
    for minutes in range(1, 8):
        tasks.charge.apply_async((minutes, "Later"), countdown=minutes * 600)
    queue.pause("newsletter")
    for number in range(3):
        tasks.ship.apply_async((number,), queue="newsletter")


def _schedules() -> None:
    from snappea import schedules
    from snappea.models import ScheduleRun, Task

    for name, every, days in (("remind Ann", 600, 7), ("remind <b>Bob</b>", 90_000, 1)):
        schedules.add(name, "tests.admin.shop.tasks.remind", every=every, args=[name], kwargs={"days": days})
        for _ in range(3):
            schedules.fire(name)
    schedules.change("numbers of the week", cron="30 4 * * mon-fri", queue="slow")
    schedules.pause("tests.admin.shop.tasks.clean_up")
    now, gone = timezone.now(), Task.objects.latest("pk").pk + 1_000_000
    for back in range(27, 0, -1):
        moment, outcome = now - timedelta(minutes=10 * back), {7: "expired", 8: "skipped"}.get(back, "")
        ScheduleRun.objects.create(schedule="numbers of the day", at=moment, task_id=gone, outcome=outcome)


def _kept() -> None:
    from snappea.models import Task

    now = timezone.now()
    put = partial(Task.objects.create, enqueued_at=now - timedelta(hours=2), attempts=1)
    frames = "".join(
        f'  File "/srv/shop/{name}.py", line 17, in {name}\n    {name}(order)\n' for name in ("ship", "book")
    )
    error = (
        f"Traceback (most recent call last):\n{frames}shop.errors.NoCarrier: <b>no luck</b> with order 17\n"
    )
    for at in range(70):
        ended = now - timedelta(minutes=17 * at)
        put(
            task_name="tests.admin.shop.tasks.ship",
            kwargs={"order": at, "parcels": 2},
            status="failed",
            started_at=ended - timedelta(seconds=2),
            finished_at=ended,
            error=error,
            exception="shop.errors.NoCarrier",
            place="shop/book.py:17 in book",
        )
    put(
        task_name="tests.admin.shop.tasks.pack",
        args=[77],
        status="interrupted",
        started_at=now - timedelta(minutes=9),
        finished_at=now - timedelta(minutes=5),
        error="The Foreman ended while it ran.",
    )


def _batches() -> None:
    import snappea

    from .tasks import publish, resize

    callbacks = {f"on_{name}": publish.s(f"{name} <b>") for name in ("success", "failure", "complete")}
    with snappea.batch(description="Photos of <b>Summer</b>\nand a long line " + "x" * 80, **callbacks):
        resize.delay_many((photo,) for photo in range(160))
        for photo in range(20):
            resize.apply_async((photo,), countdown=600)
        with snappea.batch(description="Portraits", on_complete=publish.s("Portraits")):
            resize.delay_many((photo,) for photo in range(20))
    with snappea.batch(description="Nothing to do"):
        pass


if __name__ == "__main__":
    main()
