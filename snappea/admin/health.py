"""The health of the queue: the facts of the sentence at the top of the overview."""

from collections.abc import Sequence
from typing import Any

from ..conf import current
from ..monitoring.inspect import troubles
from ..stats import Period

#: How many minutes may pass until the numbers of a minute are written.
_DELAY = 3


def health(seen: dict[str, Any], periods: Sequence[Period], minutes: int) -> dict[str, Any]:
    """Return what a `stats.snapshot()` says about the workers, and `problems`: the facts that need attention.

    `periods`: those of the charts, of so many minutes. The template "snappea/health.html" has a sentence for
    each problem.
    """
    foremen, oldest = seen["foremen"], seen["oldest"]
    found = troubles(bool(foremen), oldest)
    problems = {
        "left_behind": "left_behind" in found,
        "no_foreman": "no_foreman" in found,
        "stuck": sum(len(info["stuck"]) for info in foremen),
        "backlog": oldest if "backlog" in found else None,
        "paused": [queue for queue in seen["queues"] if queue["paused_since"]],
        "failed": seen["failed_lately"],
    }
    return {
        "problems": {name: fact for name, fact in problems.items() if fact},
        "limit": current().WARN_BACKLOG_SECONDS,
        "per_minute": _per_minute(periods, minutes),
        **{what: sum(info[what] for info in foremen) for what in ("busy", "workers", "on_loop", "isolated")},
    }


def _per_minute(periods: Sequence[Period], minutes: int) -> int:
    """Return how many runs ended per minute in the last period that is written."""
    lately = periods[-max(1, _DELAY // minutes) :]
    return next((round(period.runs / minutes) for period in reversed(lately) if period.runs), 0)
