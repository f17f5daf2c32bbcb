"""Many calls at once, written by few statements: SQLite needs four times as long for one row each."""

import json
import sqlite3
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from . import statements as sql
from .database import RawConnection
from .records import Call

#: How many characters of arguments a statement writes: SQLite allows 1 GB.
TEXT_AT_ONCE = 1_000_000
_ALL_BUT_ARGS = itemgetter(0, *range(2, 7))


def insert_plain(db: RawConnection, calls: Sequence[Call], moment: str) -> list[int]:
    """Write calls without extras in the caller's transaction. Return their ids, in the order of the calls."""
    ids: list[int] = []
    for (name, *others), alike in groupby(calls, key=_ALL_BUT_ARGS):
        args = [call.args for call in alike]
        at_once = max(1, TEXT_AT_ONCE // max(map(len, args)))
        for first in range(0, len(args), at_once):
            lot = args[first : first + at_once]
            parameters = name, *others, moment, json.dumps(lot, ensure_ascii=False)
            written = db.execute(sql.INSERT_MANY, parameters)
            if isinstance(db, sqlite3.Connection):  # within a write transaction, ids grow by one
                last = written.lastrowid or 0
                ids += range(last - len(lot) + 1, last + 1)
            else:
                ids += sorted(task_id for (task_id,) in written.fetchall())
    return ids
