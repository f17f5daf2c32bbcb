"""Moves a queue to and fro, and kills itself at one line of the move after another.

Run in a site with the database "other". After each kill, no row may be lost, and the same command again must
leave each row in one database, once.
"""

import itertools
import json
import os
import signal
import sys
from types import FrameType
from typing import Any

from django.db import connections

from snappea.queue import foremen, move

#: More rows than two chunks have.
CHUNK = 4
#: Which functions to kill, and every how many lines.
KILLED = (
    "move",
    "_begin",
    "_keep_foremen_out",
    "_require_free",
    "_finish_chunk",
    "_chunks",
    "_without_twins",
)
EVERY = 25


def run(start: str, end: str, kill_at: int = 0) -> int:
    """Move in a child, which kills itself at a line; return how it ended."""
    connections.close_all()
    child = os.fork()
    if not child:
        lines = itertools.count(1)

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            code = frame.f_code
            if "move.py" not in code.co_filename or code.co_name not in KILLED:
                return None
            if event in ("line", "return") and next(lines) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        source, target = move.side(start), move.side(end, creates=True)
        with move.queue_in(start):
            sys.settrace(trace if kill_at else None)
            for _ in move.move(source, target):
                pass
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rows(alias: str) -> dict[str, list[Any]]:
    """Return what tells rows apart, of each table."""
    found = {}
    with connections[alias].cursor() as cursor:
        for name, key in (("task", "id"), ("stat", "minute"), ("pause", "queue"), ("schedule", "name")):
            cursor.execute(f"SELECT {key} FROM snappea_{name}")
            found[name] = sorted(str(each).partition("+")[0] for (each,) in cursor.fetchall())
    return found


def marked(alias: str) -> bool:
    """Tell whether a Foreman would refuse to work on a database."""
    with connections[alias].cursor() as cursor:
        cursor.execute(foremen._MARKS)
        return bool(cursor.fetchall())


def main() -> None:
    """Kill at every few lines, until a move has fewer; print how often."""
    move.CHUNK = CHUNK
    ends = itertools.cycle([("snappea", "other"), ("other", "snappea")])
    expected, kills = rows("snappea"), 0
    for kill_at in itertools.count(1, EVERY):
        start, end = next(ends)
        if not run(start, end, kill_at):
            break
        kills += 1
        left = rows(start)
        for name, keys in rows(end).items():
            assert set(left[name]) | set(keys) == set(expected[name]), (kill_at, name)
            twice = set(left[name]) & set(keys)
            assert len(twice) <= CHUNK and (not twice or (marked(start) and marked(end))), (
                kill_at,
                name,
                twice,
            )
        assert run(start, end) == 0, kill_at
        assert rows(end) == expected, kill_at
        assert not any(rows(start).values()) and marked(start) and not marked(end), kill_at
    print(json.dumps({"kills": kills}))


if __name__ == "__main__":
    main()
