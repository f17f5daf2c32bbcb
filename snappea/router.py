"""Which database: the queue's for our tables, any other for all the rest."""

from typing import Any

from django.db import DEFAULT_DB_ALIAS

from .conf import alias

APP_LABEL = "snappea"


class SnappeaRouter:
    """Keep Snappea's tables in their own database, and everybody else's out of it.

    Stands in settings: DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
    """

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """Return the queue's database for our models, no opinion on others."""
        return alias() if model._meta.app_label == APP_LABEL else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Allow our tables in the queue's database only, and no others there, if it is not the main one."""
        if app_label == APP_LABEL:
            return db == alias()
        return False if db == alias() != DEFAULT_DB_ALIAS else None
