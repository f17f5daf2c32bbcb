"""No statement reads many rows in vain, however many there are, and whatever the server knows of them."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from snappea.postgres import foremen
from snappea.postgres.connection import DIALECT
from snappea.queue.dialects import MOST_COUNTED, TEMPLATES
from snappea.queue.states import Gate
from tests.queue.test_dialects import statements
from tests.site import PostgresSite

pytestmark = [pytest.mark.on_postgres, pytest.mark.long]
#: How many rows there are of each kind of task, and how many a node of a plan may read in vain.
ROWS, MOST = 125_000, 1_000
#: Kinds of rows, 1,000,000 in all: what they have instead of the defaults.
KINDS = (
    "status := 'ready'",
    "status := 'scheduled', run_after := now() + interval '1 h', unique_key := 'key' || n, parent_id := 1",
    f"status := 'ready', gate := {Gate.NEW}, lane := 'group'",
    f"status := 'ready', gate := {Gate.BLOCKED}, lane := 'group'",
    f"status := 'ready', gate := {Gate.BLOCKED}, lane := 'other' || n",
    "status := 'failed', finished_at := now(), exception := 'KeyError', place := 'x', batch_id := 1",
    "status := 'successful', expires_at := now() + interval '1 h', finished_at := now(), batch_id := 1",
    "status := 'ready', queue := 'fair', fair_key := 'key' || n % 9, turn := n",
)
#: The other tables that grow, and those rows that are always few.
OTHERS = (
    """INSERT INTO snappea_uniqueuntil (key, task_id, until)
        SELECT n, n, now() + interval '1 h' FROM {many} AS n""",
    "INSERT INTO snappea_opening (lane, opens_at) SELECT n, now() FROM {many} AS n",
    """INSERT INTO snappea_batch (description, created_at, finished_at, total, succeeded)
        SELECT '', now(), now(), 1, 1 FROM {many} AS n""",
    """INSERT INTO snappea_task (task_name, enqueued_at, started_at, status, foreman_id, lane)
        SELECT 'some.task', now(), now(), 'running', 1, 'group' FROM generate_series(1, 100) AS n""",
)
TABLES = ("task", "uniqueuntil", "opening", "batch")
#: Parameters by the word before them, and otherwise by their type; numbers are 1.
BY_WORD = {
    "LIMIT": "10",
    "queue": "'default'",
    "lane": "'group'",
    "task_name": "'some.task'",
    "fair_key": "'key1'",
    "key": "'key1'",
    "unique_key": "'key1'",
}
BY_TYPE = {
    "text": "''",
    "character varying": "''",
    "timestamp with time zone": "now()",
    "boolean": "false",
    "json": "'[1, 2]'",
}
#: Not run on PostgreSQL, or not as they are.
ELSEWHERE = {
    "celery.handover._UNSENT",
    "management.beat._QUERY",
    "monitoring.inspect._READY",
    "monitoring.inspect._SHUT",
    "queue.callbacks.FAMILY",
    "queue.statements.RECHECK_ALL",
    "queue.statements.RUNNING",
    "queue.statements.SET_ASIDE",
    "schedules.rows._INSERT",
    "BEGIN IMMEDIATE",
}
#: Only a Foreman asks these; no Foreman asks those. It keeps plans and avoids sorts, and a site does neither.
OF_FOREMAN = {"queue.batches.PURGE", "queue.statements.PEEK"}
OF_SITE = re.compile(
    r"monitoring|management|stats|testing|SELECT|queue.move|queue.batches.(DROP_SUCCESS|FAMILY_OF)"
)
#: Rare, and allowed to read many rows.
RARE = {
    "postgres.foremen._RECHECK",  # a Foreman died: each group is looked at
    "queue.statements.BLOCKED_GROUPS",  # a queue was resumed
    "queue.statements.RECALL",  # a queue was paused
    "queue.statements.GROUPS",  # limits were changed
    "queue.alerts._NOTED",  # once a minute, with ALERT
    "queue.batches.COUNTS",  # exact, because callers compute with it
    "monitoring.preflight._CALLBACKS",  # a command
    "SELECT id FROM (SELECT id FROM snappea_task WHERE status = ",  # the list of ready tasks is sorted
}


def all_statements() -> dict[str, str]:
    """Return the library's statements for PostgreSQL: those with a name, and all that are composed."""
    named = statements()
    others = {text.strip()[:59]: text for text in TEMPLATES.keys() - set(named.values())}
    return {name: DIALECT.text_of(text) for name, text in (named | others).items() if name not in ELSEWHERE}


class Planner:
    """A connection with all statements prepared. `is_foreman`: as a Foreman sets it up."""

    def __init__(self, site: PostgresSite, is_foreman: bool, is_planned_once: bool = False) -> None:
        self._is_foreman = is_foreman
        self._db = site.server.connect(site.name)
        self._db.prepare_threshold = None  # or psycopg forgets our statements after each ROLLBACK
        if is_foreman:
            self._db.execute(foremen._USE_INDEXES.replace("?", "false"))
            self._db.execute("SELECT set_config('snappea.foreman', '1', false)")
        if is_planned_once:
            self._db.execute("SET plan_cache_mode = force_generic_plan")
        self._db.execute("SET statement_timeout = 60000")
        self._calls = {name: self._prepare(name, text) for name, text in all_statements().items()}

    def _prepare(self, name: str, text: str) -> str:
        """Prepare a statement, and return the call of it with parameters."""
        first, *parts = text.split("%s")
        numbered = first + "".join(f"${at}{part}" for at, part in enumerate(parts, 1))
        self._db.execute(f'PREPARE "{name}" AS {numbered}')
        query = "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = %s"
        (kinds,) = self._db.execute(query, [name[:63]]).fetchall()[0]
        values = ", ".join(map(value, [first, *parts], kinds))
        return f'"{name}"({values})' if values else f'"{name}"'

    def too_many(self) -> dict[str, int]:
        """Run all statements, and return how many rows the bad ones have read in vain."""
        found = {}
        for name, call in self._calls.items():
            if name not in RARE and not (OF_SITE.match(name) if self._is_foreman else name in OF_FOREMAN):
                self._db.execute("BEGIN")
                (answer,) = self._db.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {call}").fetchall()
                self._db.execute("ROLLBACK")
                if (rows := in_vain(answer[0][0]["Plan"])) > MOST:
                    found[name] = rows
        return found


def value(before: str, kind: str) -> str:
    """Return a parameter by the text before it and by its type."""
    if before.endswith("CAST(") and kind == "text":
        return "NULL"
    word = re.search(r"(\w+)\W*$", before.removesuffix("IS NOT DISTINCT FROM "))
    return BY_WORD.get(word[1] if word else "", BY_TYPE.get(kind, "1"))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def in_vain(plan: dict[str, Any]) -> int:
    """Return the most rows that a node has filtered away, has sorted, or has read beyond what is counted."""
    most = 0
    for node in nodes(plan):
        loops = node["Actual Loops"]
        removed = sum(count for what, count in node.items() if what.startswith("Rows Removed by"))
        most = max(most, loops * removed, loops * node["Actual Rows"] - MOST_COUNTED - 1)
        if "Sort" in node["Node Type"]:
            most = max(most, *(loops * below["Actual Rows"] for below in node["Plans"]))
    return int(most)


def fill(site: PostgresSite) -> None:
    """Insert the rows."""
    for kind in KINDS:
        pairs = [pair.split(" := ") for pair in kind.split(", ")]
        columns, values = (", ".join(part) for part in zip(*pairs, strict=True))
        site.sql(
            f"""INSERT INTO snappea_task (task_name, enqueued_at, {columns})
            SELECT 'some.task', now(), {values} FROM generate_series(1, {ROWS}) AS n"""
        )
    for other in OTHERS:
        site.sql(other.format(many=f"generate_series(1, {ROWS})"))


def test_no_statement_reads_many_rows_in_vain(site: PostgresSite) -> None:
    """At 1,000,000 rows, also with plans and with statistics from when there were none.

    A site's processes keep no plans, and the server keeps its statistics up to date.
    """
    for table in TABLES:
        site.sql(f"ALTER TABLE snappea_{table} SET (autovacuum_enabled = false)")
        site.sql(f"VACUUM ANALYZE snappea_{table}")
    planned = Planner(site, is_foreman=True, is_planned_once=True)
    assert not planned.too_many()
    fill(site)
    found = {"planned when empty": planned.too_many()}
    found["analyzed when empty"] = Planner(site, is_foreman=True).too_many()
    for table in TABLES:
        site.sql(f"VACUUM ANALYZE snappea_{table}")
    found["a Foreman"] = Planner(site, is_foreman=True).too_many()
    found["a site"] = Planner(site, is_foreman=False).too_many()
    assert not any(found.values()), found
