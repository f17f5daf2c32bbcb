"""Run each task in the database schema of the tenant that enqueued it. The settings: `hooks.py`.

Try it: `python -m example_project.recipes tenants`
"""

from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection

from snappea import task


def set_schema(name: str) -> None:  # django-tenants has connection.set_schema(name)
    connection.schema_name = name  # type: ignore[attr-defined]
    if connection.vendor == "postgresql":
        connection.cursor().execute("SELECT set_config('search_path', %s, false)", [f"{name}, public"])


class InSchema:
    def __init__(self, kwargs: dict[str, Any]) -> None:
        self.name, self.before = kwargs.pop("_schema", "public"), "public"

    def __enter__(self) -> None:
        self.before = getattr(connection, "schema_name", "public")
        set_schema(self.name)

    def __exit__(self, *failure: object) -> None:
        set_schema(self.before)

    async def __aenter__(self) -> None:
        await sync_to_async(self.__enter__)()  # in the thread in which the task uses the ORM

    async def __aexit__(self, *failure: object) -> None:
        await sync_to_async(self.__exit__)(*failure)


@task(result_ttl=60)
def report() -> str:
    return f"A report for {connection.schema_name}."  # type: ignore[attr-defined]


def show() -> None:
    for name in ("acme", "globex"):
        with InSchema({"_schema": name}):  # by a middleware, in a project
            print(report.delay().get(timeout=10))
