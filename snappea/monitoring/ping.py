"""The task that `manage.py snappea check` sends to see whether tasks run."""

from ..tasks.function import task


@task(priority=100, expires=60, result_ttl=60)
async def ping() -> str:
    """Answer, on the event loop, so that no thread needs to be free."""
    return "pong"
