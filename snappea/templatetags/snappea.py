"""What the templates of the admin need: the warnings, the numbers beside the groups, values in words."""

from typing import Any

from django import template

from ..models import Status
from ..monitoring import formatting, inspect
from ..monitoring.permissions import may
from ..queue.availability import UNUSABLE, explain, trouble

register = template.Library()
register.filter("plain", formatting.plain)
register.filter("duration", formatting.duration)
register.filter("number", formatting.number)
register.filter("size", formatting.size)
register.filter("one_line", formatting.one_line)


@register.inclusion_tag("snappea/warnings.html", takes_context=True)
def snappea_warnings(context: Any) -> dict[str, Any]:
    """Show what somebody should see to: no Foreman, a long backlog."""
    request = context.get("request")
    if request is None or not may(request, "view"):
        return {"warnings": []}
    try:
        broken = trouble()
        return {"warnings": [str(broken)] if broken else inspect.look_for_warnings()}
    except UNUSABLE as error:
        return {"warnings": [str(explain(error))]}


@register.simple_tag(takes_context=True)
def snappea_counts(context: Any) -> str:
    """Have the groups in the index of the admin in the order of a task's life, each with its number."""
    apps = [app for app in context.get("app_list", ()) if app["app_label"] == "snappea"]
    if not apps:
        return ""
    try:
        counts = inspect.counts()
    except UNUSABLE:
        return ""  # the warnings say so
    groups = {f"{status.label}Task": (place, counts[status]) for place, status in enumerate(Status)}
    for app in apps:
        app["models"].sort(key=lambda model: groups.get(model["object_name"], (-1, 0))[0])
        for model in app["models"]:
            if model["object_name"] in groups:
                model["name"] = f"{model['name']} ({groups[model['object_name']][1]:,})"
    return ""
