"""The Django app."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Tags, register
from django.db.models.signals import post_migrate


class SnappeaConfig(AppConfig):
    """Registers what every process needs: the pragmas, the checks, the wakeups."""

    name = "snappea"
    verbose_name = "Snappea"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register receivers and checks."""
        from .conf import is_on, uses_celery
        from .queue import database, store  # noqa: F401  (they register receivers)
        from .tasks.context import name_tasks_in_log

        name_tasks_in_log()
        register(_check)
        register(_check_deployment, Tags.security, deploy=True)
        post_migrate.connect(_tell_after_migrate)
        if uses_celery():
            import_module("snappea.celery").register()
        if is_on("OPENTELEMETRY") and find_spec("opentelemetry"):
            import_module("snappea.opentelemetry").register()
        if os.environ.get("SNAPPEA_FOREMAN") == "1" and sys.argv[1:2] == ["runserver"]:
            import_module("snappea.companion").follow_runserver()
        if is_on("ALERT"):
            import_module("snappea.monitoring.alerts").register()


# each imports modules that a process that only enqueues does not need


def _tell_after_migrate(**kwargs: Any) -> None:
    from .queue.availability import tell_after_migrate

    tell_after_migrate(**kwargs)


def _check(**kwargs: Any) -> list[CheckMessage]:
    from . import checks

    return checks.run_all(**kwargs)


def _check_deployment(**kwargs: Any) -> list[CheckMessage]:
    from . import checks

    return checks.check_deployment()
