"""Sensitive tasks, each of which would let a secret slip in its own way."""

from snappea import Retry, task
from snappea.errors import TaskKilled

SECRET = "open-sesame-4711"
TASKS = (
    "fail_with_it",
    "fail_because_of_it",
    "try_again_for_it",
    "return_it",
    "keep_it_alone",
    "give_up_on_it",
    "play_dead_with_it",
)


@task(sensitive=True)
def fail_with_it(secret: str, *, key: str) -> None:
    """Raise it."""
    raise ValueError(f"no luck with {secret}", {"key": key})


@task(sensitive=True)
def fail_because_of_it(secret: str, *, key: str) -> None:
    """Raise something else because of it."""
    try:
        raise KeyError(secret)
    except KeyError as error:
        raise RuntimeError(key) from error


@task(sensitive=True)
def try_again_for_it(secret: str, *, key: str) -> None:
    """Ask to be tried again, and say why."""
    raise Retry(exc=OSError(secret), countdown=3600)


@task(sensitive=True, result_ttl=3600)
def return_it(secret: str, *, key: str) -> str:
    """Return it as the result."""
    return secret


@task(sensitive=True, isolate=True)
def keep_it_alone(secret: str, *, key: str) -> None:
    """Raise it in a process of its own."""
    raise ExceptionGroup(secret, [ValueError(key)])


@task(sensitive=True)
async def give_up_on_it(secret: str, *, key: str) -> None:
    """Raise it on the event loop."""
    raise LookupError(secret)


@task(sensitive=True)
def play_dead_with_it(secret: str, *, key: str) -> None:
    """Raise what is raised by nothing but the end of a process, and shown then."""
    raise TaskKilled(secret)
