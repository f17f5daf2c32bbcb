"""Celery as the engine, instead of the Foreman."""

from importlib.util import find_spec
from typing import Any

from ..errors import ExtraMissing
from ..tasks import engine


class MissingCelery(engine.Engine):
    """The engine if Celery is not installed: each call raises ExtraMissing."""

    def _refuse(self, *args: object, **kwargs: object) -> Any:
        raise ExtraMissing('SNAPPEA["ENGINE"] = "celery" needs Celery', "celery")

    enqueue = enqueue_many = broadcast = find = wait = cancel = _refuse


def register() -> None:
    """Make Celery the engine, and add its checks. The app calls this if SNAPPEA["ENGINE"] is "celery"."""
    from . import checks  # noqa: F401  (they register themselves)

    if find_spec("celery") is None:
        engine.register("celery", MissingCelery())
    else:
        from .engine import activate

        activate()
