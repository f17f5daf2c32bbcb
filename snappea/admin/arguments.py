"""The condition that an argument of a task has a value. Only valid JSON is parsed, so it raises no error."""

from typing import Any

from django.db.models import BooleanField, Q
from django.db.models.expressions import RawSQL

from ..queue.database import connect

#: A string without what PostgreSQL cannot decode: a NUL, and half of a surrogate pair.
_STRING = (
    r'"([^"\\\x01-\x1f]|\\["\\/bfnrt]|\\u(?!0000|[dD][89a-fA-F])[0-9a-fA-F]{4}'
    r'|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"'
)
_OTHER = r"-?\m(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?\M|\mtrue\M|\mfalse\M|\mnull\M"
_SPACE = r"[ \t\n\r]*"
_ONE = rf'{_SPACE}(0|""){_SPACE}'
_PAIR = rf'{_SPACE}""{_SPACE}:{_ONE}'
#: A list or an object in which there is none.
_INNERMOST = rf"\[({_SPACE}|{_ONE}(,{_ONE})*)\]|\{{({_SPACE}|{_PAIR}(,{_PAIR})*)\}}"
#: Whether an argument, by its name or place, is a value as text. Old versions of PostgreSQL cannot tell if
#: JSON is valid, and none tells if it can be decoded: the innermost parts are replaced until nothing is left.
_SQL = {
    "sqlite": """CASE WHEN snappea_task.{column} LIKE %s AND json_valid(snappea_task.{column}) THEN EXISTS (
        SELECT 1 FROM json_each(snappea_task.{column}) AS one WHERE one.key = %s AND %s =
            CASE WHEN one.type IN ('true', 'false', 'null') THEN one.type ELSE CAST(one.value AS TEXT) END)
        ELSE 0 END""",
    "postgresql": """CASE WHEN snappea_task.{column} LIKE %s AND (
        WITH RECURSIVE shrunk(text) AS (
            SELECT regexp_replace(regexp_replace(snappea_task.{column}, %s, '""', 'g'), %s, '0', 'g')
            UNION SELECT regexp_replace(text, %s, '0', 'g') FROM shrunk)
        SELECT bool_or(text ~ '^\\s*(0|"")\\s*$') FROM shrunk)
        THEN coalesce(snappea_task.{column}::json ->> %s::{kind},
            (snappea_task.{column}::json -> %s::{kind})::text) = %s
        ELSE false END""",
}


def has(column: str, key: str | int, value: str, certain: str) -> Q:
    """Return the condition. `column`: "args" or "kwargs". `certain`: text that the column then contains."""
    vendor = connect().vendor
    parameters: list[Any] = [f"%{certain}%", key, value]
    if vendor == "postgresql":
        parameters[1:1] = [_STRING, _OTHER, _INNERMOST, key]
    sql = _SQL[vendor].format(column=column, kind="int" if isinstance(key, int) else "text")
    return Q(RawSQL(sql, parameters, output_field=BooleanField()))
