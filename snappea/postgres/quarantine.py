"""Rows with times and numbers that PostgreSQL has and Python lacks."""

from typing import Any

from django.db import models

from ..queue.database import RawConnection
from ..queue.quarantine import corrected
from ..queue.records import Unusable

#: When a value is wrong, by the kind of its column.
_WRONG = {
    models.DateTimeField: "{0} NOT BETWEEN '0001-01-02' AND '9999-12-30'",
    models.FloatField: "{0} IN ('NaN', 'Infinity', '-Infinity')",
}


def unusable(db: RawConnection, model: type[models.Model], moment: str) -> list[Unusable]:
    """Return such rows of a model. The server checks everything else."""
    wrongs: dict[Any, str] = {
        field: condition.format(field.column)
        for field in model._meta.concrete_fields
        for kind, condition in _WRONG.items()
        if isinstance(field, kind)
    }
    shown = [f"CASE WHEN {wrong} THEN CAST({field.column} AS text) END" for field, wrong in wrongs.items()]
    columns, where = ", ".join([str(model._meta.pk.column), *shown]), " OR ".join([*wrongs.values(), "false"])
    found = f"SELECT {columns} FROM {model._meta.db_table} WHERE {where}"
    return [
        corrected(number, [pair for pair in zip(wrongs, row, strict=True) if pair[1] is not None], moment)
        for number, *row in db.execute(found).fetchall()
    ]
