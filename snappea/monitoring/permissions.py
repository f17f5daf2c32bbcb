"""Who may see tasks, and who may decide about them."""

from django.http import HttpRequest

_PERMISSIONS = {
    "view": ("snappea.view_task", "snappea.change_task"),
    "change": ("snappea.change_task",),
    "delete": ("snappea.delete_task",),
}


def may(request: HttpRequest, what: str) -> bool:
    """Tell whether a user may "view", "change" or "delete" tasks: one permission for all states."""
    user = getattr(request, "user", None)
    if user is None or not (user.is_active and user.is_staff):
        return False
    return any(user.has_perm(permission) for permission in _PERMISSIONS[what])
