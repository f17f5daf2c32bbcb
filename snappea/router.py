"""The database router: Snappea's tables go to the queue's database, all others elsewhere."""

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, router

from .conf import alias

APP_LABEL = "snappea"
OURS = "snappea.router.SnappeaRouter"


class SnappeaRouter:
    """Keeps Snappea's tables in their own database, and other tables out of it.

    Put it first in the settings:

    >>> DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
    """

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """Return the queue's database for Snappea's models, None for others."""
        return alias() if model._meta.app_label == APP_LABEL else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Allow our tables only in the queue's database, and no others there unless it is the default one."""
        if app_label == APP_LABEL:
            return db == alias()
        return False if db == alias() != DEFAULT_DB_ALIAS else None


def misrouted() -> str:
    """Return how the project's routers misroute the queue's database; "" if they do not."""
    return next(_misrouted(alias()), "")


def _misrouted(queue: str) -> Iterator[str]:
    for model in apps.get_app_config(APP_LABEL).get_models():
        table = model._meta.db_table
        for method, does in (("db_for_read", "reads"), ("db_for_write", "writes")):
            if (chosen := getattr(router, method)(model)) != queue:
                yield f"{_answers(method, model)} {does} {table} in the database {chosen!r}, not in {queue!r}"
        if not router.allow_migrate_model(queue, model):
            asked = queue, APP_LABEL
            more = {"model_name": model._meta.model_name, "model": model}
            yield f"{_answers('allow_migrate', *asked, **more)} keeps {table} out of the database {queue!r}"
    if queue != DEFAULT_DB_ALIAS and router.allow_migrate(queue, "auth"):
        yield f"{_answers('allow_migrate', queue, 'auth')} lets other tables into the database {queue!r}"


def _answers(method: str, *asked: Any, **hints: Any) -> str:
    for candidate in router.routers:
        if hasattr(candidate, method) and getattr(candidate, method)(*asked, **hints) is not None:
            return f"the router {type(candidate).__module__}.{type(candidate).__qualname__}"
    return "Django, without a router,"


def routers_to_paste() -> str:
    """Return the line for the settings that adds SnappeaRouter to the project's routers."""
    others = [name for name in settings.DATABASE_ROUTERS if name != OURS]
    if not all(isinstance(name, str) for name in others):
        return f'DATABASE_ROUTERS = ["{OURS}", *DATABASE_ROUTERS]'
    names = ", ".join(f'"{name}"' for name in (OURS, *others))
    return f"DATABASE_ROUTERS = [{names}]"
