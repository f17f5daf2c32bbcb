"""Retry a task when it raises a certain exception, and wait longer each time.

Try it: `python -m example_project.recipes retry`
"""

from snappea import current_task, task
from snappea.models import Task


@task(autoretry_for=(ConnectionError,), retry_backoff=True, max_retries=5, result_ttl=60)
def fetch(url: str) -> str:
    if current_task.attempt < 3:
        raise ConnectionError(f"{url} is down")
    return f"Fetched {url}."


def show() -> None:
    result = fetch.delay("https://example.com/")
    print(result.get(timeout=20))  # after two retries: the first within 1 s, the second within 2 s
    row = Task.objects.get(pk=result.id)
    print(f"Attempts: {row.attempts}")
    for attempt in row.attempt_errors():
        print(attempt["error"])
