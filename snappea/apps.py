"""The Django app."""

from django.apps import AppConfig


class SnappeaConfig(AppConfig):
    """Connects what must be in place in every process: the pragmas, the checks, the wakeups."""

    name = "snappea"
    verbose_name = "Snappea"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the modules whose receivers and checks register themselves."""
        from . import checks, database, queue  # noqa: F401  (imported for what they register)
