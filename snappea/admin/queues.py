"""The rows of the queues, with how fast each fills or empties."""

from collections import defaultdict, deque
from typing import Any

from ..models import Status
from ..queue.clock import steady_clock
from ..queue.dialects import MOST_COUNTED
from .columns import ago
from .console import database
from .search import Search

#: Over how many seconds a change is measured, at most and at least.
LONGEST, SHORTEST = 60.0, 5.0
READY = Search(f"state:{Status.READY}")

#: When this process looked at a database, and how many tasks of each queue were ready.
_looks: defaultdict[str, deque[tuple[float, dict[str, int]]]] = defaultdict(deque)


def rows(queues: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the template shows of the queues of a `stats.snapshot()`.

    `change`: how many more tasks are ready than a minute ago, as this process saw; None until it saw
    enough, and if too many are ready to count. `empty_in`: when none is ready at this rate, in seconds.
    """
    here, looks = steady_clock(), _looks[database()]
    looks.append((here, {queue["name"]: queue["ready"] for queue in queues}))
    while here - looks[0][0] > LONGEST:
        looks.popleft()
    then, before = looks[0]
    return [_row(queue, before.get(queue["name"], 0), here - then) for queue in queues]


def _row(queue: dict[str, Any], before: int, seconds: float) -> dict[str, Any]:
    ready, since = queue["ready"], queue["paused_since"]
    is_known = seconds >= SHORTEST and max(ready, before) <= MOST_COUNTED
    change = (ready - before) * 60 / seconds if is_known else None
    return {
        **queue,
        "query": READY.with_term("queue", queue["name"]).text,
        "paused_since": since and ago(since),
        "change": change,
        "empty_in": ready * 60 / -change if ready and change and change < 0 else None,
    }
