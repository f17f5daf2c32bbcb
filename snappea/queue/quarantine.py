"""The quarantine: sets aside rows with invalid values, which were written by hand.

SQLite accepts any value in any column, and PostgreSQL has times and numbers that Python lacks. Checking each
row before it is claimed or shown would slow down all tasks, so rows are checked only after an error that a
value may have caused.
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
from ..models import Pause, Schedule, ScheduleRun, Stat, Task, Total
from . import store
from .clock import now
from .database import adapter, connect, raw, transact
from .records import Unusable

T = TypeVar("T")
_Field: TypeAlias = "models.Field[Any, Any]"

#: After a check of all rows, the next one waits this many times as long as it took.
REST = 20.0
#: SQLite's errors that a value may cause: ERROR, TOOBIG, CONSTRAINT, MISMATCH.
_OF_ROWS = {1, 18, 19, 20}
#: Python's errors that a value may cause.
_OF_VALUES = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError)
#: Larger integers fit neither into a float nor into the logbook.
_MOST = 2**53
_MODELS: tuple[type[models.Model], ...] = (Task, Schedule, ScheduleRun, Pause, Stat, Total)


def is_of_values(error: BaseException) -> bool:
    """Tell whether an error may be caused by a value, stored or to be written."""
    if isinstance(error, DataError):
        return True
    if isinstance(error, DjangoError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, sqlite3.Error):  # without a code it is the module's own, as for invalid UTF-8
        return getattr(error, "sqlite_errorcode", 1) & 0xFF in _OF_ROWS
    return isinstance(error, _OF_VALUES)


class Quarantine:
    """Remembers whether a row may have caused the last failure."""

    def __init__(self) -> None:
        self._is_needed = False
        self._next = 0.0

    def note(self, error: BaseException) -> None:
        """Note why something failed."""
        self._is_needed = is_of_values(error)

    def inspect_rows(self, connection: BaseDatabaseWrapper) -> bool:
        """Set aside unusable rows if one may have caused the last failure; tell whether there was any.

        A waiting or running task fails; other rows keep their status and get readable values. Raises
        sqlite3.Error.
        """
        if not self._is_needed or time.monotonic() < self._next:
            return False
        self._is_needed = False
        began, moment = time.monotonic(), now(connection)
        is_sqlite = connection.vendor == "sqlite"
        look = _unusable if is_sqlite else adapter(connection, "quarantine").unusable
        link: Any = raw(connection)
        found = [(model, row) for model in _MODELS for row in look(link, model, moment)]
        self._next = time.monotonic() + REST * (time.monotonic() - began)
        for model, row in found:
            with transact(connection) as db:
                if model is Task:
                    store.set_aside(db, moment, row)
                else:
                    columns = ", ".join(f"{column} = ?" for column in row.instead)
                    key = "rowid" if is_sqlite else model._meta.pk.column
                    update = f"UPDATE {model._meta.db_table} SET {columns} WHERE {key} = ?"
                    db.execute(update, (*row.instead.values(), row.id))
            extra = {"task_id": row.id} if model is Task else None
            say(ERROR, "Set aside %s #%s. %s", model._meta.model_name, row.id, clean(row.why), extra=extra)
        return bool(found)


def quarantined(look: Callable[[], T]) -> T:
    """Call a function. If an unusable row makes it fail, set the row aside and call it again."""
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
    columns = ", ".join(f"+{field.column}" for field in fields)  # without Django's conversion by type
    before, db.text_factory = db.text_factory, bytearray  # survives invalid UTF-8
    found = []
    try:
        for number, *row in db.execute(f"SELECT rowid, {columns} FROM {model._meta.db_table}"):
            if wrong := [pair for pair in zip(fields, row, strict=True) if not _is_right(*pair)]:
                found.append(corrected(number, wrong, moment))
    finally:
        db.text_factory = before
    return found


def corrected(number: Any, wrong: "list[tuple[_Field, Any]]", moment: str) -> Unusable:
    """Return how to correct a row. `wrong`: its columns with invalid values."""
    said = "; ".join(f"{field.column} is {_shown(value)}" for field, value in wrong)
    instead = {str(field.column): _instead(field, value, moment) for field, value in wrong}
    return Unusable(number, instead, f"This row was written with invalid values: {said}.")


def _is_right(field: "_Field", value: Any) -> bool:
    """Tell whether a value fits its column. Text is a bytearray, a BLOB is bytes."""
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
    """Return a valid value for a column. Text is kept and escaped, so that nothing is lost."""
    if isinstance(field, models.DateTimeField):
        return None if field.null and field.column != "next_run" else moment
    if isinstance(field, (models.CharField, models.TextField)):
        return bytes(value).decode(errors="backslashreplace")
    return None if field.null else field.get_default()


def _shown(value: Any) -> str:
    if isinstance(value, bytearray):
        value = value.decode(errors="backslashreplace")
    return "no text" if isinstance(value, bytes) else f"{value!r:.100}"
