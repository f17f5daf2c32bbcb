"""`health(request)`: is all well, as JSON, for whatever watches over the site.

>>> path("health/", snappea.health.health)
"""

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .conf import current
from .monitoring import inspect
from .queue.availability import UNUSABLE, explain, trouble
from .queue.foremen import foremen_at_work


@login_not_required
@require_safe
@never_cache
def health(request: HttpRequest) -> HttpResponse:
    """Answer 200, or 503 with what is wrong in `warnings`.

    That is: no Foreman runs, the oldest ready task has waited for more than WARN_BACKLOG_SECONDS, or this
    process cannot use the queue. Answers 403 to who may not ask: see `refusal()`.
    """
    if refused := refusal(request):
        return refused
    try:
        broken = trouble()
        found = {"warnings": [str(broken)]} if broken else _findings()
    except UNUSABLE as error:
        found = {"warnings": [str(explain(error))]}
    return JsonResponse(found, status=503 if found["warnings"] else 200)


def _findings() -> dict[str, Any]:
    foremen = foremen_at_work()
    oldest = inspect.oldest_wait(inspect.queues())
    return {
        "foremen": [alive._asdict() for alive in foremen],
        "oldest": oldest,
        "counts": inspect.counts(),
        "warnings": inspect.warnings(bool(foremen), oldest),
    }


def refusal(request: HttpRequest) -> HttpResponse | None:
    """Return the answer to who may not look, None to who may.

    Who may: whoever sends `Authorization: Bearer ` and MONITORING_TOKEN, staff with the permission to view
    tasks, and with MONITORING_IS_PUBLIC everybody.
    """
    settings = current()
    if settings.MONITORING_IS_PUBLIC:
        return None
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    expected = settings.MONITORING_TOKEN
    if expected and kind.lower() == "bearer" and constant_time_compare(token.strip(), expected):
        return None
    user = getattr(request, "user", None)
    if user is not None and user.is_active and user.is_staff and user.has_perm("snappea.view_task"):
        return None
    return HttpResponseForbidden(
        'Set SNAPPEA["MONITORING_TOKEN"] and send it as "Authorization: Bearer ...".',
        content_type="text/plain",
    )
