"""The connection to a queue in PostgreSQL. Times are text, as on SQLite."""

import re
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumperUnknown

from .dialect import PostgresDialect

DIALECT = PostgresDialect()


class _Moment(Loader):
    """Loads a time as text, without its zone, which is the connection's, and with all digits."""

    def load(self, data: Buffer) -> str:
        found = re.match(r"(\d+-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d+)?", text := bytes(data).decode())
        if not found:
            return text  # infinity or BC, written by hand
        return f"{found[1]}{found[2]:0<7}" if found[2] else found[1]


class _Text(StrDumperUnknown):
    """Writes a NUL, which PostgreSQL rejects, as a visible symbol."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\0", "\u2400") if "\0" in obj else obj)


class _Rows(psycopg.Cursor[Any]):
    @property
    def lastrowid(self) -> int | None:
        """The id of the inserted row."""
        found = self.fetchone()
        return found[0] if found else None


class _NoAnswer(psycopg.OperationalError):
    """The server has not answered in time."""


class PostgresConnection:
    """Runs the queue's statements on psycopg's connection beneath Django's. Raises Django's errors."""

    def __init__(self, wrapper: BaseDatabaseWrapper) -> None:
        self._wrapper = wrapper
        self.connection: psycopg.Connection[Any] = wrapper.connection

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open that can be rolled back."""
        status = self.connection.info.transaction_status
        return status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> _Rows:
        """Run a statement."""
        with self._wrapper.wrap_database_errors:
            return self.rows().execute(DIALECT.text_of(sql), parameters or None)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> _Rows:
        """Run a statement for each row of parameters."""
        rows, parameters = self.rows(), list(parameters)
        if parameters:  # without any, psycopg would still ask the server
            with self._wrapper.wrap_database_errors:
                rows.executemany(DIALECT.text_of(sql), parameters)
        return rows

    def give_up_after(self, seconds: float) -> None:
        """Close the connection if the server does not answer a statement in time, as in a silent network.

        The statement raises OperationalError then.
        """
        wait = self.connection.wait

        def wait_in_time(steps: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
            try:
                return wait(self._in_time(steps, seconds), *args, **kwargs)
            except _NoAnswer:
                self.connection.close()
                raise

        # psycopg has no hook
        self.connection.wait = wait_in_time  # type: ignore[method-assign,assignment]

    @staticmethod
    def _in_time(steps: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
        give_up, is_ready = time.monotonic() + seconds, None
        while True:
            try:
                awaited = steps.send(is_ready)
            except StopIteration as done:
                return done.value
            is_ready = yield awaited  # from time to time, even if it is not
            if not is_ready and time.monotonic() >= give_up:
                raise _NoAnswer(f"the server has not answered within {seconds:g} s")

    def rows(self) -> _Rows:
        """Return a new cursor, for COPY."""
        rows = _Rows(self.connection)
        rows.adapters.register_loader("timestamptz", _Moment)
        rows.adapters.register_dumper(str, _Text)
        return rows
