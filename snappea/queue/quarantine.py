"""The quarantine: sets aside rows that were written by hand so that they cannot be used.

SQLite accepts any value in any column. To check each row before it is claimed or shown would slow down all of
them, so they are checked only after something has failed in a way in which no disk fails.
"""

import sqlite3
import time
from collections.abc import Callable
from datetime import datetime
from logging import ERROR
from math import isfinite
from typing import Any, TypeAlias, TypeVar

from django.db import DataError, models
from django.db import Error as DjangoError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..log import clean, say
from ..models import Pause, Schedule, Stat, Task, Total
from . import store
from .clock import now
from .database import RawConnection, connect, transact
from .records import Unusable

T = TypeVar("T")
_Field: TypeAlias = "models.Field[Any, Any]"

#: After a check of all rows, the next one waits this many times as long as it took.
REST = 20.0
#: The kinds of SQLite's errors that a row may cause: ERROR, TOOBIG, CONSTRAINT, MISMATCH.
_OF_ROWS = {1, 18, 19, 20}
#: Other errors that a row may cause.
_OF_VALUES = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError)
#: Larger integers fit neither into a float nor into the logbook.
_MOST = 2**53
_MODELS: tuple[type[models.Model], ...] = (Task, Schedule, Pause, Stat, Total)


def is_of_values(error: BaseException) -> bool:
    """Tell whether something failed because of a value, in a row or to be written into one."""
    if isinstance(error, DataError):
        return True
    if isinstance(error, DjangoError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, sqlite3.Error):  # one without a code comes from the module: invalid UTF-8, say
        return getattr(error, "sqlite_errorcode", 1) & 0xFF in _OF_ROWS
    return isinstance(error, _OF_VALUES)


class Quarantine:
    """Remembers whether something failed because of a row."""

    def __init__(self) -> None:
        self._is_needed = False
        self._next = 0.0

    def note(self, error: BaseException) -> None:
        """Take notice of why something failed."""
        self._is_needed = is_of_values(error)

    def inspect_rows(self, connection: BaseDatabaseWrapper) -> bool:
        """Set aside the unusable rows, if one may have caused the last failure; tell whether there was any.

        A task that waits or runs fails; other rows keep their status, and get values that can be read. Raises
        sqlite3.Error.
        """
        if not self._is_needed or time.monotonic() < self._next or connection.vendor != "sqlite":
            return False
        self._is_needed = False
        began, moment = time.monotonic(), now(connection)
        found = [(model, row) for model in _MODELS for row in _unusable(connection.connection, model, moment)]
        self._next = time.monotonic() + REST * (time.monotonic() - began)
        for model, row in found:
            with transact(connection) as db:
                if model is Task:
                    store.set_aside(db, moment, row)
                else:
                    _repair(db, model, row)
            say(ERROR, "Set aside %s #%d. %s", model._meta.model_name, row.id, clean(row.why))
        return bool(found)


def quarantined(look: Callable[[], T]) -> T:
    """Call a function; if it fails because of an unusable row, set that aside and call it again."""
    try:
        return look()
    except Exception as error:
        quarantine = Quarantine()
        quarantine.note(error)
        if not quarantine.inspect_rows(connect()):
            raise
        return look()


def _unusable(db: sqlite3.Connection, model: type[models.Model], moment: str) -> list[Unusable]:
    fields = [field for field in model._meta.concrete_fields if field.column != "id"]
    columns = ", ".join(f"+{field.column}" for field in fields)  # without the conversion by the column's type
    before, db.text_factory = db.text_factory, bytearray  # invalid UTF-8 must not end the reading
    found = []
    try:
        for number, *row in db.execute(f"SELECT rowid, {columns} FROM {model._meta.db_table}"):
            if wrong := [pair for pair in zip(fields, row, strict=True) if not _is_right(*pair)]:
                said = "; ".join(f"{field.column} is {_shown(value)}" for field, value in wrong)
                instead = {str(field.column): _instead(field, value, moment) for field, value in wrong}
                found.append(Unusable(number, instead, f"This row was written with invalid values: {said}."))
    finally:
        db.text_factory = before
    return found


def _is_right(field: "_Field", value: Any) -> bool:
    """Tell whether a value fits its column. Text comes as a bytearray, a BLOB as bytes."""
    if value is None:
        return field.null
    try:
        if isinstance(field, models.BooleanField):
            return type(value) is int and value in (0, 1)
        if isinstance(field, models.IntegerField):
            return type(value) is int and -_MOST < value < _MOST
        if isinstance(field, models.FloatField):
            return isfinite(value)
        text = value.decode()
        is_date = isinstance(field, models.DateTimeField)
        return type(value) is bytearray and not (is_date and datetime.fromisoformat(text).tzinfo)
    except (AttributeError, TypeError, ValueError):
        return False


def _instead(field: "_Field", value: Any, moment: str) -> Any:
    """Return what a column may have instead. Text is kept, escaped: nothing is lost, and nothing invented."""
    if isinstance(field, models.DateTimeField):
        return None if field.null and field.column != "next_run" else moment
    if isinstance(field, (models.CharField, models.TextField)):
        return bytes(value).decode(errors="backslashreplace")
    return None if field.null else field.get_default()


def _shown(value: Any) -> str:
    if isinstance(value, bytearray):
        value = value.decode(errors="backslashreplace")
    return "no text" if isinstance(value, bytes) else f"{value!r:.100}"


def _repair(db: RawConnection, model: type[models.Model], row: Unusable) -> None:
    columns = ", ".join(f"{column} = ?" for column in row.instead)
    db.execute(
        f"UPDATE {model._meta.db_table} SET {columns} WHERE rowid = ?", (*row.instead.values(), row.id)
    )
