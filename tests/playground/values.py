"""Tasks that return, say and raise what no database takes."""

from typing import Any

from django.utils.translation import gettext_lazy

from snappea import Retry, current_task, task

#: What progress() is called with.
SAID: dict[str, tuple[Any, ...]] = {
    "lazy": (1, 2, gettext_lazy("January")),
    "large": (2**70, 2**71),
    "surrogate": (1, 2, "a\ud800b"),
    "nul": (1, 2, "a\0b"),
    "long": (1, 2, "x" * 5000),
    "number": (1, 2, 3),
    "nan": (float("nan"),),
    "infinite": (1, float("inf")),
    "huge": (10**400,),
    "text": ("1", 2),
    "bytes": (1, 2, b"x"),
    "none": (None,),
}
RESULTS: dict[str, Any] = {
    "large": "x" * 5000,
    "list": ["\u00e4" * 10] * 60,
    "surrogate": "a\ud800b",
    "nan": [float("nan")],
    "bytes": b"x",
    "lazy": gettext_lazy("January"),
    "nul": "a\0b",
    "integer": 2**70,
}


def say_progress(kind: str) -> None:
    """Tell how far it is, and leave that on the row, for the task fails."""
    current_task.progress(*SAID[kind])
    raise ValueError("said")


say = task(say_progress)
say_alone = task(name="tests.playground.values.say_alone", isolate=True)(say_progress)


@task
async def say_async(kind: str) -> None:
    """Do as say()."""
    say_progress(kind)


@task(result_ttl=60)
def give(kind: str) -> Any:
    """Return something."""
    return RESULTS[kind]


@task(result_ttl=60, isolate=True)
def give_alone(kind: str) -> Any:
    """Return something."""
    return RESULTS[kind]


@task
def raise_text(text: str) -> None:
    """Raise an exception that says something no database takes."""
    raise ValueError(f"a{chr(0xD800)}\0{text}")


@task
def retry_never() -> None:
    """Spoil a Retry after it was checked."""
    retry = Retry(countdown=1)
    retry.countdown = float("nan")
    raise retry
