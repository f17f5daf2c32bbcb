"""Which alerts were told: a row of UniqueUntil for each, so that one of all processes tells it.

`until` is when to tell it, and far away once it is told; then `task_id` is 1.
"""

from .clock import later, now
from .database import connect, raw, transact

#: The longest name of an alert, in characters.
MOST = 58
_PREFIX = "alert/"
_FAR = 100 * 365 * 86400.0
_NOTE = "INSERT INTO snappea_uniqueuntil (key, task_id, until) VALUES (?, 0, ?) ON CONFLICT (key) DO NOTHING"
_TAKE = "UPDATE snappea_uniqueuntil SET until = ? WHERE key = ? AND until <= ?"
_TOLD = "UPDATE snappea_uniqueuntil SET until = ?, task_id = 1 WHERE key = ?"
_NOTED = "SELECT key, task_id FROM snappea_uniqueuntil WHERE key LIKE ?"
_END = "DELETE FROM snappea_uniqueuntil WHERE key = ?"


def is_to_be_told(name: str, after: float, again: float) -> bool:
    """Note an alert. Return whether to tell it: it was first noted `after` seconds ago or more.

    Then no other process is to tell it for `again` seconds, and none at all after note_told().
    """
    with transact(connect()) as db:
        moment = now(connect())
        db.execute(_NOTE, (_PREFIX + name, later(moment, after)))
        return db.execute(_TAKE, (later(moment, again), _PREFIX + name, moment)).rowcount == 1


def note_told(name: str) -> None:
    """Note that an alert was told."""
    with transact(connect()) as db:
        db.execute(_TOLD, (later(now(connect()), _FAR), _PREFIX + name))


def noted() -> dict[str, bool]:
    """Return the alerts that were noted and are not over yet, and whether they were told."""
    rows = raw(connect()).execute(_NOTED, (f"{_PREFIX}%",)).fetchall()
    return {key.removeprefix(_PREFIX): bool(is_told) for key, is_told in rows}


def end(name: str) -> None:
    """Forget an alert that is over."""
    with transact(connect()) as db:
        db.execute(_END, (_PREFIX + name,))
