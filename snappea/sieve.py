"""The Sieve: sets aside the rows that somebody wrote by hand so that nobody can work with them.

SQLite takes anything into any column. To look at each row before it is claimed or shown would cost all of
them; so they are looked at when something has failed in a way in which no disk fails.
"""

import sqlite3
import time
from collections.abc import Callable
from datetime import datetime
from logging import ERROR
from math import isfinite
from typing import Any, TypeVar

from django.db import Error as DjangoError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from . import queue
from .database import connect, now, transact
from .log import clean, say
from .models import Task
from .records import Unusable
from .states import Status

T = TypeVar("T")

#: It rests so many times as long as it took to look.
REST = 20.0
#: The kinds of SQLite's errors that may come from what stands in a row: ERROR, TOOBIG, CONSTRAINT, MISMATCH.
_OF_ROWS = {1, 18, 19, 20}
#: Other errors that may.
_OF_VALUES = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError)
#: Numbers beyond these can neither be counted on nor entered in the logbook.
_MOST = 2**53
_FIELDS = [field for field in Task._meta.concrete_fields if field.column not in ("id", "status")]
#: As it stands there, whatever type the column has.
_ALL = f"SELECT id, +status, {', '.join(f'+{field.column}' for field in _FIELDS)} FROM snappea_task"
#: For a row of which it cannot be known when it was enqueued.
_LONG_AGO = "1970-01-01 00:00:00"


class Sieve:
    """Remembers whether something failed because of a row."""

    def __init__(self) -> None:
        self._is_needed = False
        self._next = 0.0

    def note(self, error: BaseException) -> None:
        """Take notice of why something failed."""
        if isinstance(error, DjangoError) and error.__cause__:
            error = error.__cause__
        if isinstance(error, sqlite3.Error):  # one without a code comes from the module: no UTF-8, say
            self._is_needed = getattr(error, "sqlite_errorcode", 1) & 0xFF in _OF_ROWS
        else:
            self._is_needed = isinstance(error, _OF_VALUES)

    def sift(self, connection: BaseDatabaseWrapper) -> bool:
        """Set aside the rows that nobody can work with, if one may be to blame; tell whether any was.

        Those that wait or run fail; those that are kept stay what they are. Raises sqlite3.Error.
        """
        if not self._is_needed or time.monotonic() < self._next or connection.vendor != "sqlite":
            return False
        self._is_needed = False
        began = time.monotonic()
        found = _unusable(connection.connection)
        self._next = time.monotonic() + REST * (time.monotonic() - began)
        for row in found:
            with transact(connection) as db:
                queue.set_aside(db, now(connection), row)
            say(ERROR, "Set aside task #%d. %s", row.id, clean(row.why))
        return bool(found)


def sifted(look: Callable[[], T]) -> T:
    """Return what it returns; if it fails because of a row that nobody can read, once that is set aside."""
    try:
        return look()
    except Exception as error:
        sieve = Sieve()
        sieve.note(error)
        if not sieve.sift(connect()):
            raise
        return look()


def _unusable(db: sqlite3.Connection) -> list[Unusable]:
    before, db.text_factory = db.text_factory, bytearray  # what is no UTF-8 must not end the reading
    try:
        return [found for row in db.execute(_ALL) if (found := _look_at(*row))]
    finally:
        db.text_factory = before


def _look_at(task_id: int, status: Any, *values: Any) -> Unusable | None:
    """Return what is wrong with a row; None if nothing is."""
    wrong = [
        (field, value) for field, value in zip(_FIELDS, values, strict=True) if not _is_right(field, value)
    ]
    text = status.decode(errors="replace") if isinstance(status, bytearray) else ""
    is_wrong = not text or "\ufffd" in text
    if not wrong and not is_wrong:
        return None
    instead = {str(field.column): None if field.null else field.get_default() for field, _value in wrong}
    if "enqueued_at" in instead:
        instead["enqueued_at"] = _LONG_AGO
    if is_wrong or text in ("scheduled", "ready", "running"):
        instead["status"] = Status.FAILED.value
    said = [f"{field.column} is {_shown(value)}" for field, value in wrong]
    said += [f"status is {_shown(status)}"] if is_wrong else []
    return Unusable(task_id, instead, f"Somebody wrote into this row what it cannot have: {'; '.join(said)}.")


def _shown(value: Any) -> str:
    return repr(value.decode(errors="backslashreplace") if isinstance(value, bytearray) else value)[:200]


def _is_right(field: "models.Field[Any, Any]", value: Any) -> bool:
    """Tell whether a value is of the kind that its column is for; text comes as a bytearray."""
    if value is None:
        return field.null
    if isinstance(field, models.BooleanField):
        return value in (0, 1) and isinstance(value, int)
    if isinstance(field, models.IntegerField):
        return isinstance(value, int) and -_MOST < value < _MOST
    if isinstance(field, models.FloatField):
        return isinstance(value, (int, float)) and isfinite(value)
    try:
        text = value.decode() if isinstance(value, bytearray) else None
        if text is not None and isinstance(field, models.DateTimeField):
            return datetime.fromisoformat(text).tzinfo is None
    except ValueError:  # no UTF-8, no date
        return False
    return text is not None
