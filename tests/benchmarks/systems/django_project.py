"""What the systems that are Django apps have in common."""

from pathlib import Path
from typing import Any

import django
from django.apps import apps

from .base import System


def sqlite_database(file: Path) -> dict[str, Any]:
    """Return the settings of a database as fast as Django's users can have it: WAL, NORMAL, IMMEDIATE."""
    options = {
        "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
    }
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": file, "OPTIONS": options}


class DjangoSystem(System):
    """A queue that keeps its tasks in Django's default database."""

    installed: tuple[str, ...] = ()

    def prepare(self, directory: Path) -> list[str]:
        return ["-m", "django", "migrate", "-v", "0"]

    def django_settings(self, directory: Path) -> dict[str, Any]:
        return {
            "SECRET_KEY": "only for benchmarks",
            "USE_TZ": True,
            "INSTALLED_APPS": [*self.installed, "tests.benchmarks"],
            "DATABASES": {"default": sqlite_database(directory / "default.sqlite3")},
        }

    def set_up(self, directory: Path) -> None:
        if not apps.ready:  # as it is in a management command
            django.setup()
