"""PostgreSQL for the queue: a link that understands the statements that are written for SQLite.

What stands in /*+ ... */ there holds here only, where there may be several Foremen. A moment is text here as
well, and comes as SQLite has it.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumperUnknown

_BOOLEAN = r"\b(is_\w+|acks_late|(?:other\.)?unique_running)"
#: Who asks; what is asked by nobody in particular finds nothing.
_ME = "nullif(current_setting('snappea.foreman', true), '')::bigint"
_MOMENT = "to_char({}, 'YYYY-MM-DD HH24:MI:SS.US')"
_TERMS = f"""
    CASE WHEN num_nonnulls(result_ttl, lane, parent_id, expires_at, run_after, nullif(interruptions, 0),
        nullif(is_sensitive, false), backend) > 0
    THEN json_build_array(result_ttl, lane, lane_interval, interruptions, parent_id,
        {_MOMENT.format("expires_at")}, {_MOMENT.format("run_after")}, is_sensitive,
        CASE WHEN backend <> '' THEN json_build_array(backend, overrides, {_MOMENT.format("started_at")},
            {_MOMENT.format("first_started_at")}, errors) END)::text END"""
_PHRASES = [
    (re.compile(pattern, re.DOTALL), words)
    for pattern, words in (
        (r"/\*\+(.*?)\*/", r"\1"),
        (r"/\*me\*/ 0|@me", _ME),
        (r"BEGIN IMMEDIATE", "BEGIN"),
        (r"INDEXED BY \w+", ""),
        (r"(?<=[\s,(])\+(?=[a-z])", ""),
        (rf"{_BOOLEAN} = 0\b", r"\1 = false"),
        (rf"{_BOOLEAN} = 1\b", r"\1 = true"),
        (r"CASE WHEN coalesce\(result_ttl, lane.*$", _TERMS),
        (r"json_set\(\?, '\$\.attempt', attempts\)", """'{"attempt": ' || attempts || substr(?, 17)"""),
        (r"\bchar\(10\)", "chr(10)"),
        (r"\bsubstr\((errors .*?) THEN -20000 ELSE -200000 ", r"right(\1 THEN 20000 ELSE 200000 "),
        (r"datetime\(\?, .*? seconds'\)", "CAST(? AS timestamptz) + make_interval(secs => result_ttl)"),
        (
            r"\bid IN \(SELECT value FROM json_each\((\S+?)\)\)",
            r"id = ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(\1::json)))",
        ),
        (r"json_each\((\S+?)\)", r"json_array_elements_text(\1::json)"),
        # an array, because a list may be asked for again for each row, and locks others then
        (r"\bid IN \((\s*SELECT id FROM(?:(?!SELECT id FROM).)*?SKIP LOCKED\s*)\)", r"id = ANY(ARRAY(\1))"),
        (r"^(\s*INSERT INTO \w+_task .*)$", r"\1 RETURNING id"),
        (r"\?", "%s"),
        (r"(?<!:):([a-z]\w*)", r"%(\1)s"),
    )
]


@functools.cache
def translated(statement: str) -> str:
    """Return a statement that is written for SQLite in PostgreSQL's words."""
    for pattern, words in _PHRASES:
        statement = pattern.sub(words, statement)
    return statement


class _Moment(Loader):
    """Leaves a moment text, without its zone, which is the connection's, and with all its digits."""

    def load(self, data: Buffer) -> str:
        found = re.match(r"(\d+-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d+)?", text := bytes(data).decode())
        if not found:
            return text  # infinity, or before our time: somebody wrote it by hand
        return f"{found[1]}{found[2]:0<7}" if found[2] else found[1]


class _Text(StrDumperUnknown):
    """Writes a NUL, which PostgreSQL does not take, as its picture."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\0", "\u2400") if "\0" in obj else obj)


class _Rows(psycopg.Cursor[Any]):
    @property
    def lastrowid(self) -> int | None:
        """The id of the row that was inserted."""
        found = self.fetchone()
        return found[0] if found else None


class PostgresConnection:
    """Runs the queue's statements on Django's connection. Raises Django's errors."""

    def __init__(self, wrapper: BaseDatabaseWrapper) -> None:
        self._wrapper = wrapper
        #: psycopg's own.
        self.connection: psycopg.Connection[Any] = wrapper.connection

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, and can be rolled back."""
        status = self.connection.info.transaction_status
        return status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> _Rows:
        """Run a statement."""
        with self._wrapper.wrap_database_errors:
            return self._rows().execute(translated(sql), parameters or None)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> _Rows:
        """Run a statement for each of many parameters."""
        rows, parameters = self._rows(), list(parameters)
        if parameters:  # psycopg would ask the server, with nothing to say
            with self._wrapper.wrap_database_errors:
                rows.executemany(translated(sql), parameters)
        return rows

    def _rows(self) -> _Rows:
        rows = _Rows(self.connection)
        rows.adapters.register_loader("timestamptz", _Moment)
        rows.adapters.register_dumper(str, _Text)
        return rows
