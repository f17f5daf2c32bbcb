"""What stands in for Celery's engine where Celery is not installed."""

from typing import Any

from ..errors import ExtraMissing
from ..tasks.engine import Engine


class MissingCelery(Engine):
    """Refuses every call, and says what to install."""

    def _refuse(self, *args: object, **kwargs: object) -> Any:
        raise ExtraMissing('SNAPPEA["ENGINE"] = "celery" needs Celery', "celery")

    enqueue = enqueue_many = broadcast = find = wait = cancel = _refuse
