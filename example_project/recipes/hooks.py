"""Each setting takes one hook: these two combine those of `tenants` and `tracing`.

SNAPPEA = {
    "HOOK_ADD_TASK_KWARGS": "example_project.recipes.hooks.add_kwargs",
    "HOOK_RUN_TASK_CONTEXT": "example_project.recipes.hooks.run_context",
}
"""

from typing import Any

from django.db import connection

from .tenants import InSchema
from .tracing import add_request_id, request_id


def add_kwargs() -> dict[str, Any]:
    return {"_schema": getattr(connection, "schema_name", "public"), **add_request_id()}


def run_context(kwargs: dict[str, Any]) -> InSchema:
    request_id.set(kwargs.pop("_request_id", ""))
    return InSchema(kwargs)
