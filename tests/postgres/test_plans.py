"""What the Foreman asks of PostgreSQL reads few rows, however many there are."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from snappea.postgres import foremen
from snappea.postgres.connection import DIALECT
from snappea.postgres.foremen import use_indexes
from snappea.queue import statements as sql
from snappea.queue.clock import now
from snappea.queue.database import connect, raw
from snappea.queue.states import Gate
from tests.site import PostgresSite

pytestmark = [pytest.mark.on_postgres, pytest.mark.long]
#: How many rows there are of each kind, and how many a statement may read in vain.
ROWS, MOST = 20_000, 1_000
#: Kinds of rows: what they have instead of the defaults.
KINDS = (
    "status := 'ready'",
    "status := 'scheduled', run_after := now() + interval '1 h'",
    f"status := 'ready', gate := {Gate.NEW}, lane := 'group'",
    f"status := 'ready', gate := {Gate.BLOCKED}, lane := 'group'",
    f"status := 'ready', gate := {Gate.BLOCKED}, lane := 'other' || n",
    "status := 'failed', finished_at := now()",
    "status := 'successful', expires_at := now() + interval '1 h', finished_at := now()",
)


@pytest.fixture(params=["when it was full", "when it was empty"])
def full(site: PostgresSite, request: Any) -> PostgresSite:
    """A queue with many rows of each kind. The server plans by what it has learned at one of two moments."""
    site.sql("ALTER TABLE snappea_task SET (autovacuum_enabled = false)")
    site.sql("VACUUM ANALYZE snappea_task")
    for kind in KINDS:
        pairs = [pair.split(" := ") for pair in kind.split(", ")]
        columns, values = (", ".join(part) for part in zip(*pairs, strict=True))
        site.sql(
            f"""INSERT INTO snappea_task (task_name, enqueued_at, {columns})
            SELECT 'some.task', now(), {values} FROM generate_series(1, {ROWS}) AS n"""
        )
    if request.param == "when it was full":
        site.sql("VACUUM ANALYZE snappea_task")
    return site


def asked() -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Return the statements of a round, with parameters."""
    moment = now()
    return {
        "PEEK": (sql.PEEK, ()),
        "CLAIM": (sql.CLAIM, (moment, False, "default", "default", 10)),
        "CLAIM_ADDRESSED": (sql.CLAIM_ADDRESSED, (moment, False, 10)),
        "QUEUES": (sql.QUEUES, (False, False)),
        "FIRST": (sql.FIRST, (False, "default", 10)),
        "PROMOTE": (sql.PROMOTE, (moment, 10)),
        "EXPIRE": (sql.EXPIRE, (moment, 10)),
        "NEW_KEYS": (sql.NEW_KEYS, (10,)),
        "BLOCK_NEW": (sql.BLOCK_NEW, ("", 10)),
        "FRONT": (sql.FRONT, (False, "default", 0)),
        "FRONT_OF_GROUP": (sql.FRONT_OF_GROUP, ("group", 0)),
        "LAST_OF_KEY": (sql.LAST_OF_KEY, ("key", False, "default", 0)),
        "NEXT_IN_GROUP": (sql.NEXT_IN_GROUP, ("group", None, None)),
        "ADMIT": (sql.ADMIT, ("group", None, None, 1)),
        "TAKEN": (sql.TAKEN, ("group",)),
        "YIELD": (sql.YIELD, ("group", 0, None, None)),
        "running in": (foremen._RUNNING_IN, ()),
        "running of": (foremen._RUNNING_OF, (1,)),
        "orphans": (foremen._ORPHANS, (30,)),
        "recheck": (foremen._RECHECK, ()),
        "dismissed": (foremen._DISMISS, (1,)),
    }


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def read_in_vain(statement: str, parameters: tuple[Any, ...]) -> int:
    """Run a statement, and return the most rows that a node has read without need."""
    text = f"EXPLAIN (ANALYZE, FORMAT JSON) {DIALECT.text_of(statement)}"
    found = raw(connect()).execute(text, parameters).fetchone()[0]
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    most = 0
    for node in nodes(plan):
        loops = node["Actual Loops"]
        most = max(most, loops * node.get("Rows Removed by Filter", 0))
        if "Sort" in node["Node Type"]:
            most = max(most, *(loops * below["Actual Rows"] for below in node["Plans"]))
    return int(most)


def test_no_statement_reads_many_rows_in_vain(full: PostgresSite) -> None:
    db = raw(connect())
    use_indexes(db)
    db.execute("SELECT set_config('snappea.foreman', '1', false)")
    found = {}
    for name, (statement, parameters) in asked().items():
        db.execute("BEGIN")
        found[name] = read_in_vain(statement, parameters)
        db.execute("ROLLBACK")
    assert not {name: rows for name, rows in found.items() if rows > MOST}
