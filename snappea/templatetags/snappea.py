"""Template tags of the admin: warnings, the number of tasks in each list, formatted values."""

from typing import Any

from django import template

from ..errors import QueueUnavailable
from ..models import LISTS, Status
from ..monitoring import formatting, inspect
from ..monitoring.permissions import may
from ..queue.availability import UNUSABLE, usable

register = template.Library()
register.filter(formatting.plain)
register.filter(formatting.duration)
register.filter(formatting.number)
register.filter(formatting.capped)
register.filter(formatting.size)
register.filter(formatting.one_line)
register.filter(formatting.when)


@register.inclusion_tag("snappea/warnings.html", takes_context=True)
def snappea_warnings(context: Any) -> dict[str, Any]:
    """Show warnings, such as that no Foreman is running, if the user may view tasks."""
    request = context.get("request")
    if request is None or not may(request, "view"):
        return {"warnings": []}
    try:
        with usable():
            found = inspect.look_for_warnings()
    except QueueUnavailable as error:
        found = [str(error)]
    return {"warnings": found}


@register.simple_tag(takes_context=True)
def snappea_counts(context: Any) -> str:
    """Sort the lists in the admin's index in the order of states, and add the number of tasks to each."""
    apps = [app for app in context.get("app_list", ()) if app["app_label"] == "snappea"]
    if not apps:
        return ""
    try:
        counts = inspect.counts()
    except UNUSABLE:
        return ""  # the warnings say why
    lists = {LISTS[status].__name__: (place, counts[status]) for place, status in enumerate(Status)}
    for app in apps:
        app["models"].sort(key=lambda model: lists.get(model["object_name"], (-1, 0))[0])
        for model in app["models"]:
            if model["object_name"] in lists:
                model["name"] += f" ({formatting.capped(lists[model['object_name']][1])})"
    return ""
