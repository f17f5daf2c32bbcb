"""Many calls at once, written by few statements: SQLite needs four times as long for one row each."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from . import statements as sql
from .database import RawConnection
from .records import Alike, Call

#: How many characters of arguments a statement writes: SQLite allows 1 GB.
TEXT_AT_ONCE = 1_000_000
_ALL_BUT_ARGS = itemgetter(0, *range(2, 7))


def _runs(calls: Sequence[Call]) -> Iterator[tuple[Any, list[str]]]:
    """Return the calls in runs of equal ones: what they share, and the `args` of each."""
    if isinstance(calls, Alike):
        yield _ALL_BUT_ARGS(calls.first), calls.args
        return
    for shared, alike in groupby(calls, key=_ALL_BUT_ARGS):
        yield shared, [call.args for call in alike]


def insert_plain(db: RawConnection, calls: Sequence[Call], moment: str) -> list[int]:
    """Write calls without extras in the caller's transaction. Return their ids, in the order of the calls."""
    ids: list[int] = []
    for (name, *others), args in _runs(calls):
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
