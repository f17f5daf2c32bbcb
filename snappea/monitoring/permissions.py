"""Permissions to view, change and delete tasks, for the admin and the monitoring views."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeAlias

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ..conf import current

Access: TypeAlias = Literal["view", "change", "delete", "monitor"]

_VIEW = ("snappea.view_task", "snappea.change_task")
_PERMISSIONS: dict[Access, tuple[str, ...]] = {
    "view": _VIEW,
    "change": ("snappea.change_task",),
    "delete": ("snappea.delete_task",),
    "monitor": _VIEW,
}


def may(request: HttpRequest, what: Access) -> bool:
    """Return whether a request has an access to tasks. All states have the same permissions.

    "monitor" is also granted if MONITORING_IS_PUBLIC is set, and to requests with the MONITORING_TOKEN.
    """
    if what == "monitor" and (current().MONITORING_IS_PUBLIC or _has_token(request)):
        return True
    user = getattr(request, "user", None)
    if user is None or not (user.is_active and user.is_staff):
        return False
    return any(user.has_perm(permission) for permission in _PERMISSIONS[what])


def _has_token(request: HttpRequest) -> bool:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    expected = current().MONITORING_TOKEN or ""
    return expected != "" and kind.lower() == "bearer" and constant_time_compare(token.strip(), expected)


def monitored(view: Callable[[HttpRequest], HttpResponse]) -> Callable[..., Any]:
    """Make a view answer requests that may monitor, and all others with 403, never with a login page."""

    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        if may(request, "monitor"):
            return view(request)
        return HttpResponseForbidden(
            'Set SNAPPEA["MONITORING_TOKEN"] and send it as "Authorization: Bearer ...".',
            content_type="text/plain",
        )

    return login_not_required(require_safe(never_cache(answer)))
