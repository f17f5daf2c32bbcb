"""Tasks of a module that no installed app holds, as in the package of a project's settings."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.tasks import task
else:
    from tests.playground.djangotasks import task


@task
def double(number: int) -> int:
    return 2 * number
