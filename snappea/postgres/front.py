"""Claims from where the line of a queue begins.

Before that, the index of ready tasks has the entries of tasks that have ended, until the next vacuum.
"""

import time
from collections.abc import Mapping

from ..queue import store
from ..queue.database import RawConnection
from ..queue.dialects import statement
from ..queue.records import Claim

#: How long the front of a line is known, in seconds, and at most if it takes long to find. A task that comes
#: before it later waits for so long.
KNOWN_FOR, MOST_KNOWN_FOR = 0.25, 2.0
#: It is looked up only if so many tasks were claimed meanwhile.
BUSY = 20

_FRONT = statement("""
    SELECT priority, {PLACE} FROM snappea_task WHERE {CLAIMABLE} AND is_async = ? AND queue = ?
    {FIRST_IN_LINE} LIMIT 1""")
#: As CLAIM, but more urgent tasks and those from the front on.
_CLAIM_FROM = statement("""
    {START} WHERE id {among}(
        SELECT id FROM (
            SELECT id FROM (SELECT id FROM snappea_task
                WHERE {CLAIMABLE} AND is_async = ? AND queue = ? AND priority > ?
                {FIRST_IN_LINE} {skip_locked}) AS urgent
            UNION ALL
            SELECT id FROM (SELECT id FROM snappea_task
                WHERE {CLAIMABLE} AND is_async = ? AND queue = ? AND priority = ? AND {PLACE} >= ?
                {FIRST_IN_LINE} {skip_locked}) AS others) AS line
        WHERE NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = ?) LIMIT ?){end}
    RETURNING {CLAIM}""")


class Front:
    """The front of the line that this Foreman claims from."""

    def __init__(self) -> None:
        self._line: tuple[bool, str] = False, ""  # whether for the event loop, and the queue
        self._known: tuple[int, int] | None = None  # priority and place
        self._until, self._claimed = 0.0, 0

    def claim(
        self,
        db: RawConnection,
        moment: str,
        limit: int,
        shares: Mapping[str, int],
        in_order: bool = False,
        is_async: bool = False,
    ) -> list[Claim]:
        """Do what `store.claim()` does."""
        claims: list[Claim] = []
        if len(shares) == 1:
            [(queue, share)] = shares.items()
            claims = self._claim(db, moment, (is_async, queue), limit := min(limit, share))
        if len(claims) < limit:
            self._known = None
            claims += store.claim(db, moment, limit - len(claims), shares, in_order, is_async)
        self._claimed += len(claims)
        return claims

    def _claim(self, db: RawConnection, moment: str, line: tuple[bool, str], limit: int) -> list[Claim]:
        if (here := time.monotonic()) >= self._until or line != self._line:
            is_busy = self._claimed >= BUSY and line == self._line
            self._known = db.execute(_FRONT, line).fetchone() if is_busy else None
            known_for = max(KNOWN_FOR, min(20 * (time.monotonic() - here), MOST_KNOWN_FOR))
            self._line, self._claimed, self._until = line, 0, here + known_for
        if self._known is None:
            return []
        values = moment, *line, self._known[0], *line, *self._known, line[1], limit
        return sorted(map(Claim._make, db.execute(_CLAIM_FROM, values).fetchall()))
