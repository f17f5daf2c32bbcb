"""`health(request)`: the state of the queue as JSON, for probes and load balancers.

>>> path("health/", snappea.health.health)
"""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from .errors import QueueUnavailable
from .monitoring import inspect
from .monitoring.permissions import monitored
from .queue.availability import usable
from .queue.foremen import foremen_at_work


@monitored
def health(request: HttpRequest) -> HttpResponse:
    """Answer 200, or 503 if there are `warnings`.

    Warnings: no Foreman runs, the oldest ready task has waited longer than WARN_BACKLOG_SECONDS, or this
    process cannot use the queue. Requests without permission get 403.

    >>> urlpatterns += [path("health/", health)]
    """
    found: dict[str, Any]
    try:
        with usable():
            foremen, oldest = foremen_at_work(), inspect.oldest_wait(inspect.queues(most=1))
            found = {
                "foremen": [inspect.described(info) for info in foremen],
                "oldest": oldest,
                "counts": inspect.counts(),
                "warnings": inspect.warnings(bool(foremen), oldest),
            }
    except QueueUnavailable as error:
        found = {"warnings": [str(error)]}
    return JsonResponse(found, status=503 if found["warnings"] else 200)
