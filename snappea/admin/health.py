"""The health of the queue: the facts of the sentence at the top of the overview."""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from .. import stats
from ..conf import current
from ..models import Status, Task
from ..monitoring.inspect import in_state, troubles

#: How many minutes may pass until the numbers of a minute are written.
_DELAY = 3


def health(seen: dict[str, Any]) -> dict[str, Any]:
    """Return what a `stats.snapshot()` says about the workers, and `problems`: the facts that need attention.

    The template "snappea/health.html" has a sentence for each problem.
    """
    foremen, oldest = seen["foremen"], seen["oldest"]
    found = troubles(bool(foremen), oldest)
    problems = {
        "left_behind": "left_behind" in found,
        "no_foreman": "no_foreman" in found,
        "stuck": sum(len(info["stuck"]) for info in foremen),
        "backlog": oldest if "backlog" in found else None,
        "paused": [queue for queue in seen["queues"] if queue["paused_since"]],
        "failed": _failed_lately(),
    }
    return {
        "problems": {name: fact for name, fact in problems.items() if fact},
        "limit": current().WARN_BACKLOG_SECONDS,
        "per_minute": _per_minute(),
        **{what: sum(info[what] for info in foremen) for what in ("busy", "workers", "on_loop", "isolated")},
    }


def _failed_lately() -> int:
    """Return how many tasks failed in the last hour and still wait for a decision."""
    hour_ago = timezone.now() - timedelta(hours=1)
    return in_state(Task.objects.filter(finished_at__gte=hour_ago), Status.FAILED).count()


def _per_minute() -> int:
    """Return how many runs ended in the last minute that is written."""
    return next((period.runs for period in reversed(stats.history(_DELAY, 1)) if period.runs), 0)
