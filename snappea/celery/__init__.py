"""Celery in place of the Foreman."""

from importlib.util import find_spec


def register() -> None:
    """Make Celery the engine, and add its checks. The app calls this if SNAPPEA["ENGINE"] is "celery"."""
    from . import checks  # noqa: F401  (they register themselves)

    if find_spec("celery") is None:
        from ..tasks import engine
        from .missing import MissingCelery

        engine.register("celery", MissingCelery())
    else:
        from .engine import take_charge

        take_charge()
