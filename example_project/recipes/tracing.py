"""Pass the id of a request to the tasks that it enqueues, without an argument in each of them.

    SNAPPEA = {
        "HOOK_ADD_TASK_KWARGS": "example_project.recipes.tracing.add_request_id",
        "HOOK_RUN_TASK_CONTEXT": "example_project.recipes.tracing.with_request_id",
    }

Try it: `python -m example_project.recipes tracing`
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from snappea import task

request_id = ContextVar("request_id", default="")


def add_request_id() -> dict[str, Any]:
    return {"_request_id": request_id.get()} if request_id.get() else {}


@contextmanager
def with_request_id(kwargs: dict[str, Any]) -> Iterator[None]:
    request_id.set(kwargs.pop("_request_id", ""))  # each task has a context of its own
    yield


@task(result_ttl=60)
def ship(order_id: int) -> str:
    return f"Order {order_id} ships for request {request_id.get()}."


def show() -> None:
    request_id.set("5f3a")  # by a middleware, in a project
    print(ship.delay(42).get(timeout=10))
