"""The Django app."""

from importlib.util import find_spec

from django.apps import AppConfig


class SnappeaConfig(AppConfig):
    """Connects what must be in place in every process: the pragmas, the checks, the wakeups."""

    name = "snappea"
    verbose_name = "Snappea"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the modules whose receivers and checks register themselves."""
        from .conf import uses_celery
        from .queue import database, store  # noqa: F401  (imported for what they register)
        from .tasks.context import name_tasks_in_log

        name_tasks_in_log()

        if uses_celery():
            _put_celery_in_charge()


def _put_celery_in_charge() -> None:
    from .tasks import engine

    if find_spec("celery") is None:
        engine.use(engine.MissingCelery())
        return
    from .celery.engine import take_charge

    take_charge()
