"""Dead rows: the Foreman vacuums when it pays, and names what keeps the server from removing them."""

import threading
import time
from logging import INFO, WARNING

from django.db.backends.base.base import BaseDatabaseWrapper

from ..log import say, say_seldom
from ..queue.database import FAULTS, RawConnection, raw
from .dialect import LOCKS

#: How many dead rows a table must have: a vacuum reads all indexes, so it takes longer where many rows live.
DEAD_ROWS, DEAD_PART = 20_000, 0.05
#: How soon to look again if another Foreman vacuums, or if they could not be removed, in seconds.
TRY_AGAIN = 60.0

_DEAD = f"""
    SELECT relid::regclass::text, n_dead_tup FROM pg_stat_user_tables
    WHERE relid::regclass::text LIKE 'snappea\\_%' AND n_dead_tup >= {DEAD_ROWS} + {DEAD_PART} * n_live_tup"""
#: After a vacuum on this connection: the server may have skipped a table.
_LEFT = f"""{_DEAD}
    AND last_vacuum >= (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"""
#: Until the connection closes.
_ALONE = f"SELECT pg_try_advisory_lock({LOCKS}, 3)"
#: All index entries, or claims would still read them. Nothing that waits for claims, or makes them wait.
_VACUUM = "VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON, TRUNCATE OFF)"
#: Another user's transaction shows its age only to a member of pg_read_all_stats.
_HOLDER = """
    SELECT name || coalesce(', open for ' || extract(epoch FROM now() - since)::int || ' s', '')
    FROM (SELECT format('pid %s (%s)', pid, coalesce(nullif(application_name, ''), backend_type)),
                coalesce(backend_xmin, backend_xid), xact_start
            FROM pg_stat_activity WHERE backend_type <> 'autovacuum worker' AND pid <> pg_backend_pid()
                AND coalesce(datname, current_database()) = current_database()
        UNION ALL SELECT 'prepared transaction ' || gid, transaction, prepared
            FROM pg_prepared_xacts WHERE database = current_database()
        UNION ALL SELECT 'replication slot ' || slot_name, xmin, NULL FROM pg_replication_slots
        ) AS found (name, oldest, since)
    WHERE oldest IS NOT NULL ORDER BY age(oldest) DESC LIMIT 1"""

_HELD = (
    "%s has %d dead rows, and VACUUM cannot remove them, because an old transaction may still read them: %s. "
    "End that transaction or process."
)


class Vacuum:
    """Removes dead rows in a thread, on a connection of its own."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._thread = threading.Thread()
        self._next_look = 0.0  # by time.monotonic()
        self._is_held = False

    def look(self, db: RawConnection) -> None:
        """Start a vacuum if a table has many dead rows, and none runs."""
        if (here := time.monotonic()) < self._next_look or self._thread.is_alive():
            return
        if db.execute(_DEAD).fetchone():
            self._next_look = here + TRY_AGAIN
            self._thread = threading.Thread(target=self._run, name="snappea-vacuum", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        connection = self._connection.copy()
        connection.settings_dict["OPTIONS"].pop("pool", None)  # the lock ends with the connection
        try:
            connection.ensure_connection()
            if (db := raw(connection)).execute(_ALONE).fetchone()[0]:
                self._vacuum(db)
        except FAULTS as error:
            say_seldom(WARNING, "Could not vacuum the queue's tables: %r", error)
        finally:
            connection.close()

    def _vacuum(self, db: RawConnection) -> None:
        db.execute("SET statement_timeout = 0")
        for name, _dead in db.execute(_DEAD).fetchall():
            db.execute(f"{_VACUUM} {name}")
        left, holder = db.execute(_LEFT).fetchone(), db.execute(_HOLDER).fetchone()
        if left and holder:
            say(WARNING, _HELD, *left, *holder)
        elif self._is_held:
            say(INFO, "VACUUM could remove dead rows again.")
        if not left:
            self._next_look = 0.0
        self._is_held = bool(left and holder)
