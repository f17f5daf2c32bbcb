"""PostgreSQL as a database that the queue leaves or enters."""

# ruff: noqa: D102  (see Side for the methods)

from collections.abc import Iterable
from typing import Any

from ..conf import current
from ..errors import QueueUnavailable
from ..queue.clock import now
from ..queue.database import RawConnection
from ..queue.move import Side, Table
from . import foremen
from .connection import DIALECT, PostgresConnection
from .dialect import LOCKS

#: Held until the connection closes.
_LOCK = f"SELECT pg_try_advisory_lock({LOCKS}, 10)"


class PostgresSide(Side):
    """Rows come and go by COPY."""

    db: PostgresConnection
    last_id = "SELECT pg_sequence_last_value(pg_get_serial_sequence(?, 'id')::regclass)"

    def keep_foremen_out(self) -> None:
        self.db.execute("SET synchronous_commit = on")
        if self.db.execute(_LOCK).fetchall() != [(True,)]:
            raise QueueUnavailable(f"another move is at work in {self.name!r}")
        for found in foremen.foremen_at_work():
            what = f"a Foreman is at work in {self.name!r}: pid {found.pid} on {found.host}"
            wait = f"stop it; if it has died, wait {current().FOREMAN_TIMEOUT:g} s and try again"
            raise QueueUnavailable(what, wait)

    def recover(self, db: RawConnection) -> None:
        foremen.reap(db, now(self.connection), current().FOREMAN_TIMEOUT)

    def read(self, table: Table, keys: str) -> Iterable[Any]:
        sql = f"COPY ({DIALECT.text_of(table.read)}) TO STDOUT"
        with self.connection.wrap_database_errors, self.db.rows().copy(sql, (keys,)) as copy:
            copy.set_types([str(each.db_type(self.connection)).partition("(")[0] for each in table.fields])
            yield from copy.rows()

    def write(self, table: Table, rows: Iterable[Any]) -> None:
        sql = f"COPY {table.name} ({table.columns}) FROM STDIN"
        with self.connection.wrap_database_errors, self.db.rows().copy(sql) as copy:
            for row in rows:
                copy.write_row(row)

    def skip_to(self, db: RawConnection, table: str, number: int) -> None:
        db.execute("SELECT setval(pg_get_serial_sequence(?, 'id'), ?)", (table, number))
