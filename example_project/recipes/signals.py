"""Mail the admins when a task fails for good.

Try it: `python -m example_project.recipes signals`
"""

from typing import Any

from django.core.mail import mail_admins
from django.dispatch import receiver

from example_project.settings import EMAIL_FILE_PATH
from snappea import TaskFunction, task
from snappea.errors import TaskFailed
from snappea.signals import task_failed


@task(result_ttl=60)
def charge(order_id: int) -> None:
    raise ValueError(f"order {order_id} has no address")


@receiver(task_failed, sender=charge)
def alert(sender: TaskFunction[..., Any], id: int, exception: Exception, **kwargs: Any) -> None:
    mail_admins(f"{sender.name} #{id} failed", repr(exception))


def show() -> None:
    result = charge.delay(42)
    try:
        result.get(timeout=10)
    except TaskFailed:
        mails = [path.read_text() for path in EMAIL_FILE_PATH.glob("*.eml")]
        print(f"Mails about it: {sum(f'#{result.id} failed' in mail for mail in mails)}")
