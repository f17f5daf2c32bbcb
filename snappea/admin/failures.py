"""Failures in groups: the rows that the overview shows too, and what their tab shows."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from django.http import HttpRequest

from ..monitoring import inspect
from ..monitoring.failures import Group, by_last, groups
from ..monitoring.inspect import Failures
from .columns import ago, short_name
from .search import spelled

#: The height of a sparkline and the width of an hour in it, in pixels.
HEIGHT, STEP = 22, 4


def contents(request: HttpRequest) -> dict[str, Any]:
    """Return what the tab shows: the groups, the largest first; with `?sort=last`, the newest first."""
    found, is_by_last = inspect.failures(), request.GET.get("sort") == "last"
    shown = (by_last(found) if is_by_last else found)[: inspect.MOST_SHOWN]
    return {
        "groups": group_rows(shown),
        "total": sum(group.number for group in found),
        "more": len(found) - len(shown),
        "is_by_last": is_by_last,
    }


def group_rows(failures: Sequence[Failures]) -> list[dict[str, Any]]:
    """Return what the template shows of groups: the columns of Group, a search, a key, and a sparkline."""
    return [
        {
            **group._asdict(),
            "key": f"{crc32(repr(group[:3]).encode(errors='replace')):08x}",
            "short": short_name(group.task_name),
            "query": _query(group),
            "spark": _spark(group.hours),
            "seen": (ago(group.first), ago(group.last)),
        }
        for group in groups(failures)
    ]


def _query(group: Group) -> str:
    terms = (
        ("state", "failed"),
        ("exception", group.exception),
        ("place", group.place),
        ("task", group.task_name),
    )
    return " ".join(spelled(*term) for term in terms)


def _spark(hours: Sequence[int]) -> str:
    """Return the path of a sparkline: a stroke for each hour in which tasks failed."""
    most = max(hours, default=0)
    heights = [max(2, round(HEIGHT * count / most)) if count else 0 for count in hours]
    return "".join(f"M{STEP * at + 2} {HEIGHT}v-{height}" for at, height in enumerate(heights) if height)
