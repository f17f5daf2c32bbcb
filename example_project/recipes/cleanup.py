"""Delete failed tasks a month after they failed.

Try it: `python -m example_project.recipes cleanup`
"""

from datetime import timedelta

from django.utils import timezone

from snappea import queue, task
from snappea.models import Task


@task(every=timedelta(days=1), result_ttl=60)
def delete_old_failures() -> int:
    a_month_ago = timezone.now() - timedelta(days=30)
    return queue.delete(Task.objects.filter(status="failed", finished_at__lt=a_month_ago))


def show() -> None:
    failed_at = timezone.now() - timedelta(days=31)
    Task.objects.create(task_name="shop.tasks.ship", status="failed", finished_at=failed_at)
    print(f"Deleted: {delete_old_failures.delay().get(timeout=10)}")
