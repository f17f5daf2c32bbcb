"""A task that does everything that a replay undoes."""

from django.contrib.auth.models import Group
from django.core.mail import send_mail
from django.db import transaction

from snappea import batch, current_task, step, task

from .ledger import note
from .tasks import nothing, record


def _charge(order: int) -> int:
    note("charged", order)
    return order


@task
def pay(order: int, *, fails: bool = True) -> str:
    """Pay an order."""
    step("charge", _charge, order)
    with transaction.atomic(durable=True):
        Group.objects.create(name=f"order {order}")
    nothing.delay_on_commit()
    record.delay("paid")
    with batch(on_success=nothing) as found:
        record.delay_many([("a",), ("b",)])
    send_mail("Paid", "Thank you", "shop@example.com", ["ada@example.com"])
    step("mail", _charge, order + 1)
    note("attempt", current_task.id, current_task.attempt, bool(found.id))
    if fails:
        raise ValueError(f"order {order}")
    return f"paid {order}"
