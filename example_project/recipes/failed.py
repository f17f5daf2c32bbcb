"""Find out why tasks failed, and requeue them once the cause is fixed.

Try it: `python -m example_project.recipes failed`
"""

from django.contrib.auth.models import User
from django.utils.crypto import get_random_string

from snappea import queue, task
from snappea.errors import TaskFailed
from snappea.models import Task


@task(result_ttl=60)
def greet(username: str) -> str:
    return f"Hello, {User.objects.get(username=username).username.partition('-')[0]}!"


def show() -> None:
    name = f"grace-{get_random_string(8)}"
    result = greet.delay(name)
    try:
        result.get(timeout=10)
    except TaskFailed:
        row = Task.objects.get(pk=result.id)
        print(f"{row.status}: {row.exception}")  # row.error is the traceback

    User.objects.create(username=name)
    queue.requeue(Task.objects.filter(status="failed", task_name=greet.name, pk=result.id))
    print(result.get(timeout=10))
