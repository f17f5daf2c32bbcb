"""The Quarantine: sets aside the rows that somebody wrote by hand so that nobody can work with them.

SQLite takes anything into any column. To look at each row before it is claimed or shown would cost all of
them; so they are looked at when something has failed in a way in which no disk fails.
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
from .connection import RawConnection
from .database import connect, transact
from .records import Unusable

T = TypeVar("T")
_Field: TypeAlias = "models.Field[Any, Any]"

#: It rests so many times as long as it took to look.
REST = 20.0
#: The kinds of SQLite's errors that may come from what stands in a row: ERROR, TOOBIG, CONSTRAINT, MISMATCH.
_OF_ROWS = {1, 18, 19, 20}
#: Other errors that may.
_OF_VALUES = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError)
#: Numbers beyond these can neither be counted on nor entered in the logbook.
_MOST = 2**53
#: Whose rows are put right; those of tasks fail as well.
_MODELS: tuple[type[models.Model], ...] = (Task, Schedule, Pause, Stat, Total)


def is_of_values(error: BaseException) -> bool:
    """Tell whether something failed because of a value, in a row or to be written into one."""
    if isinstance(error, DataError):
        return True
    if isinstance(error, DjangoError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, sqlite3.Error):  # one without a code comes from the module: no UTF-8, say
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
        """Set aside the rows that nobody can work with, if one may be to blame; tell whether any was.

        Those that wait or run fail; those that are kept stay what they are. Raises sqlite3.Error.
        """
        if not self._is_needed or time.monotonic() < self._next or connection.vendor != "sqlite":
            return False
        self._is_needed = False
        began = time.monotonic()
        moment = now(connection)
        found = {model: _unusable(connection.connection, model, moment) for model in _MODELS}
        self._next = time.monotonic() + REST * (time.monotonic() - began)
        for model, rows in found.items():
            for row in rows:
                with transact(connection) as db:
                    if model is Task:
                        store.set_aside(db, moment, row)
                    else:
                        _put_right(db, model, row)
                say(ERROR, "Set aside %s #%d. %s", model._meta.model_name, row.id, clean(row.why))
        return any(found.values())


def quarantined(look: Callable[[], T]) -> T:
    """Return what it returns; if it fails because of a row that nobody can read, once that is set aside."""
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
    columns = ", ".join(f"+{field.column}" for field in fields)  # as it stands there, whatever its type
    before, db.text_factory = db.text_factory, bytearray  # what is no UTF-8 must not end the reading
    try:
        rows = db.execute(f"SELECT rowid, {columns} FROM {model._meta.db_table}")
        return [found for row in rows if (found := _look_at(fields, moment, *row))]
    finally:
        db.text_factory = before


def _look_at(fields: "list[_Field]", moment: str, number: int, *values: Any) -> Unusable | None:
    """Return what is wrong with a row; None if nothing is."""
    pairs = zip(fields, values, strict=True)
    wrong = [(field, value) for field, value in pairs if not _is_right(field, value)]
    if not wrong:
        return None
    said = [f"{field.column} is {_shown(value)}" for field, value in wrong]
    instead = {str(field.column): _instead(field, value, moment) for field, value in wrong}
    return Unusable(number, instead, f"Somebody wrote into this row what it cannot have: {'; '.join(said)}.")


def _instead(field: "_Field", value: Any, moment: str) -> Any:
    """Return what a column may have instead."""
    if isinstance(field, models.DateTimeField):
        return None if field.null and field.column != "next_run" else moment
    if isinstance(field, (models.CharField, models.TextField)):
        return bytes(value).decode(errors="backslashreplace")  # no value is lost, and none is made up
    return None if field.null else field.get_default()


def _put_right(db: RawConnection, model: type[models.Model], row: Unusable) -> None:
    columns = ", ".join(f"{column} = ?" for column in row.instead)
    db.execute(
        f"UPDATE {model._meta.db_table} SET {columns} WHERE rowid = ?", (*row.instead.values(), row.id)
    )


def _shown(value: Any) -> str:
    return "no text" if isinstance(value, bytes) else f"{_text(value)!r:.100}"


def _text(value: Any) -> Any:
    return value.decode(errors="backslashreplace") if isinstance(value, bytearray) else value


def _is_right(field: "_Field", value: Any) -> bool:
    """Tell whether a value is of the kind that its column is for; text comes as a bytearray."""
    if value is None:
        return field.null
    if isinstance(field, models.BooleanField):
        return value in (0, 1) and isinstance(value, int)
    if isinstance(field, models.IntegerField):
        return isinstance(value, int) and -_MOST < value < _MOST
    if isinstance(field, models.FloatField):
        return isinstance(value, (int, float)) and isfinite(value)
    if not isinstance(value, bytearray):
        return False
    try:
        text = value.decode()
        return not isinstance(field, models.DateTimeField) or datetime.fromisoformat(text).tzinfo is None
    except ValueError:  # no UTF-8, no date
        return False
