"""The same, but no process enqueues this one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.tasks import task
else:
    from tests.playground.djangotasks import task


@task
def double(number: int) -> int:
    return 2 * number
