"""Several Foremen on one queue: their heartbeats, and the limits that they share.

A Foreman that has sent no heartbeat for FOREMAN_TIMEOUT is considered dead: another one interrupts its tasks,
and its later outcomes are refused.
"""

import json
import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from django.db.transaction import atomic, set_rollback

from ..conf import alias, current
from ..queue import groups, store
from ..queue.clock import as_datetime, now
from ..queue.database import RawConnection, connect, raw, ring_on_commit, transact
from ..queue.dialects import statement
from ..queue.records import Call, ForemanInfo, Recovered
from .dialect import LOCKS

_REGISTER = """
    INSERT INTO snappea_presence (host, pid, since, seen_at, workers, stuck)
    VALUES (?, ?, clock_timestamp(), clock_timestamp(), ?, '[]') RETURNING id"""
_BE_KNOWN = "SELECT set_config('snappea.foreman', ?, false)"
#: Up to this many Foremen, all listen. A NOTIFY wakes each one that listens, and costs a transaction there.
FEW = 3
#: Of more, one of those that serve the same queues listens: the one that has the lock, until it disconnects.
_RENEW = f"""
    UPDATE snappea_presence SET seen_at = clock_timestamp(), workers = ?, stuck = ?, queues = ? WHERE id = ?
    RETURNING extract(epoch FROM seen_at)::float, (SELECT count(*) FROM snappea_presence) <= {FEW}
        OR pg_try_advisory_lock('snappea_presence'::regclass::oid::int, hashtext(queues))"""
_LEAVE = "DELETE FROM snappea_presence WHERE id = ?"
#: While the server was down, no Foreman could send a heartbeat.
_IS_SILENT = "greatest(seen_at, pg_postmaster_start_time()) <= clock_timestamp() - make_interval(secs => ?)"
_SILENT = f"SELECT id, pid, host FROM snappea_presence WHERE {_IS_SILENT} ORDER BY id FOR UPDATE SKIP LOCKED"
_PRESENT = f"""
    SELECT id, pid, host, since, workers, stuck, queues FROM snappea_presence
    WHERE NOT ({_IS_SILENT}) ORDER BY id"""

#: A lock until the end of the transaction: only this Foreman writes the declared schedules.
HOLD_SCHEDULES = f"SELECT pg_advisory_xact_lock({LOCKS}, 2)"
_RUNNING_IN = """
    SELECT queue, count(*) FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'running'
    GROUP BY queue"""
#: Sorted here: a Foreman's plans avoid sorts, and would walk through all rows instead.
_RUNNING_OF = """
    SELECT id, claims, started_at, task_name FROM snappea_task
    WHERE foreman_id = ? AND status = 'running'"""
#: Claimed by a Foreman that was considered dead, and died before it noticed.
_ORPHANS = """
    SELECT id, claims, started_at, task_name FROM snappea_task
    WHERE foreman_id IS NOT NULL AND status = 'running'
        AND started_at <= clock_timestamp() - make_interval(secs => ?)
        AND NOT EXISTS (SELECT 1 FROM snappea_presence WHERE snappea_presence.id = foreman_id)"""
_ADOPT = "UPDATE snappea_task SET foreman_id = ? WHERE foreman_id = ? AND status = 'running'"
#: Make the first blocked task of each group new: a dead Foreman may have been about to look at any of them.
_RECHECK = statement("""
    UPDATE snappea_task SET gate = {NEW} WHERE id {among}(
        SELECT DISTINCT ON (lane) id FROM snappea_task WHERE {IS_BLOCKED}
        ORDER BY lane, priority DESC, {PLACE}){end}""")
_DISMISS = "DELETE FROM snappea_task WHERE foreman_id = ? AND status IN ('ready', 'scheduled')"
_ADDRESS = statement("UPDATE snappea_task SET foreman_id = ?, gate = {ADDRESSED} WHERE id = ?")
_UNCONFIRMED = f"""
    SELECT count(*) FROM snappea_presence, snappea_pause
    WHERE queue = ? AND replace(heard_by, ' ' || snappea_presence.id || ' ', '') = heard_by
        AND NOT ({_IS_SILENT})"""
#: The server keeps plans that it made while the table was empty, so they must suit any size.
_USE_INDEXES = """
    SELECT set_config(name, 'off', ?)
    FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'jit']) AS name"""


def use_indexes(db: RawConnection, is_local: bool = False) -> None:
    """Make a connection plan for any size of the tables. `is_local`: until its transaction ends."""
    db.execute(_USE_INDEXES, (is_local,))


@contextmanager
def reading() -> Iterator[None]:
    """Let the statements of a block use indexes, even if the server knows too little about the table."""
    with atomic(alias()):
        use_indexes(raw(connect()), is_local=True)
        yield
        set_rollback(True, alias())  # the settings end with it


# heartbeats


def register(db: RawConnection, workers: int) -> int:
    """Add a new Foreman, and return its id."""
    foreman_id: int = db.execute(_REGISTER, (socket.gethostname()[:255], os.getpid(), workers)).fetchone()[0]
    return foreman_id


def be_known(db: RawConnection, foreman_id: int) -> None:
    """Make this connection claim tasks for a Foreman."""
    db.execute(_BE_KNOWN, (str(foreman_id),))


def renew(
    db: RawConnection, foreman_id: int, workers: int, stuck: str, queues: str
) -> tuple[float, bool] | None:
    """Send a heartbeat. Return its time, by the server's clock, and whether this Foreman must listen.

    Returns None if the Foreman was considered dead.
    """
    found: tuple[float, bool] | None = db.execute(_RENEW, (workers, stuck, queues, foreman_id)).fetchone()
    return found


def adopt(db: RawConnection, foreman_id: int, before: int) -> None:
    """Give a Foreman the tasks that it has claimed with its former id since it was considered dead."""
    db.execute(_ADOPT, (foreman_id, before))


def leave(db: RawConnection, foreman_id: int) -> None:
    """Delete a Foreman that runs no more tasks, and the tasks that only it could run."""
    db.execute(_DISMISS, (foreman_id,))
    db.execute(_LEAVE, (foreman_id,))


def foremen_at_work() -> list[ForemanInfo]:
    """Return the Foremen that have sent a heartbeat within FOREMAN_TIMEOUT."""
    rows = raw(connect()).execute(_PRESENT, (current().FOREMAN_TIMEOUT,)).fetchall()
    here = socket.gethostname()
    return [
        ForemanInfo(
            pid,
            host,
            as_datetime(since),
            workers,
            json.loads(stuck),
            host == here,
            number,
            json.loads(queues),
        )
        for number, pid, host, since, workers, stuck, queues in rows
    ]


def reap(db: RawConnection, moment: str, timeout: float) -> dict[str, list[Recovered]]:
    """Interrupt the tasks of Foremen without a heartbeat for `timeout` seconds, and delete these Foremen.

    In the caller's transaction. Returns the tasks of each.
    """
    found = {}
    for foreman_id, pid, host in db.execute(_SILENT, (timeout,)).fetchall():
        found[f"Foreman {pid} on {host}"] = _interrupt(db, moment, _RUNNING_OF, foreman_id)
        leave(db, foreman_id)
    if orphans := _interrupt(db, moment, _ORPHANS, timeout):
        found["A Foreman that was considered dead"] = orphans
    if found:
        groups.hold_gates(db)
        db.execute(_RECHECK)
    return found


def _interrupt(db: RawConnection, moment: str, chosen: str, parameter: float) -> list[Recovered]:
    left = []
    for *fence, name in sorted(db.execute(chosen, (parameter,)).fetchall()):
        if status := store.interrupt(db, moment, tuple(fence), "Its Foreman died or was cut off."):
            left.append(Recovered(fence[0], name, f"now {status}", status))
    return left


# limits shared by all Foremen


def running_in(db: RawConnection) -> dict[str, int]:
    """Return how many tasks of each queue run on all Foremen."""
    return dict(db.execute(_RUNNING_IN).fetchall())


def served() -> list[str]:
    """Return the queues that running Foremen serve; none if one of them serves all."""
    found = [info.queues for info in foremen_at_work()]
    return [name for queues in found for name in queues] if all(found) else []


def clock(db: RawConnection) -> str:
    """Return the time by the clock of the server."""
    moment: str = db.execute("SELECT clock_timestamp()").fetchone()[0]
    return moment


def has_confirmed(db: RawConnection, queue: str) -> bool:
    """Tell whether every running Foreman has confirmed the pause of a queue."""
    return not db.execute(_UNCONFIRMED, (queue, current().FOREMAN_TIMEOUT)).fetchone()[0]


def enqueue_for(foremen: Collection[int], call: Call) -> list[int]:
    """Write one task for each of these Foremen, which only that one may run; return the ids."""
    connection = connect()
    with transact(connection) as db:
        ids = [store.insert(db, call, now(connection))[0] for _ in foremen]
        db.executemany(_ADDRESS, list(zip(foremen, ids, strict=True)))
    ring_on_commit(connection)
    return ids
