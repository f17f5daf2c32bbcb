"""Each statement in the SQL of each database, and the indexes that the hot ones use."""

import importlib
import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

import snappea
from snappea.postgres.dialect import PostgresDialect
from snappea.postgres.foremen import use_indexes
from snappea.queue import statements as sql
from snappea.queue.clock import now
from snappea.queue.database import connect, raw
from snappea.queue.dialects import TEMPLATES
from tests.site import Site

#: What each statement is on each database. After a change: SNAPSHOT=write pytest tests/queue/test_dialects.py
SNAPSHOT = Path(__file__).with_name("statements.sql")
POSTGRES = PostgresDialect()
NAME = re.compile(r"^(_?[A-Z][A-Z_]*) = (?:statement\()?f?\"", re.MULTILINE)
IS_STATEMENT = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\b")


def statements() -> dict[str, str]:
    """Return the library's statements as SQLite runs them, by module and name."""
    found = {}
    home = Path(snappea.__file__).parent
    for path in sorted(home.rglob("*.py")):
        source, module = path.read_text(), ".".join(path.relative_to(home).with_suffix("").parts)
        names = [name for name in NAME.findall(source) if not module.startswith(("docs.", "migrations."))]
        for name in names:
            text = vars(importlib.import_module(f"snappea.{module.removesuffix('.__init__')}"))[name]
            if isinstance(text, str) and IS_STATEMENT.match(text) and "{untyped}" not in text:
                found[f"{module}.{name}"] = text
    return found


def printed(name: str, text: str) -> str:
    lines = [line.rstrip() for line in textwrap.dedent(text).strip().splitlines()]
    return "\n".join([f"-- {name}", *lines, ""])


def test_every_statement_is_as_in_the_snapshot() -> None:
    pages = []
    for name, text in sorted(statements().items()):
        on_postgres = POSTGRES.text_of(text)
        if text == on_postgres:
            pages.append(printed(f"{name}, both", text))
        else:
            pages += [printed(f"{name}, SQLite", text), printed(f"{name}, PostgreSQL", on_postgres)]
    found = "\n".join(pages)
    if os.environ.get("SNAPSHOT") == "write":
        SNAPSHOT.write_text(found)
    assert found == SNAPSHOT.read_text()


def test_a_text_has_one_template() -> None:
    """Otherwise two statements could not differ on PostgreSQL."""
    texts = [text for text in statements().values() if text in TEMPLATES]
    assert len(texts) == len(set(texts)) > 40


def test_no_sql_is_translated() -> None:
    for path in Path(snappea.__file__).parent.rglob("*.py"):
        assert "/*" not in path.read_text().replace("/**", ""), path


#: Of each hot statement: the parameters, and which indexes it is to use; none: the primary key.
LANE = "lane10"
FENCE = (10, 1, None)
HOT: dict[str, tuple[tuple[Any, ...], str]] = {
    "IDENTICAL": (("key", "key"), "unique_waiting unique_running"),
    "PEEK": ((), "scheduled ready expires revoked new addressed"),
    "PROMOTE": (("now", 10), "scheduled"),
    "EXPIRE": (("now", 10), "expires"),
    "QUEUES": ((False, False), "ready"),
    "FIRST": ((False, "default", 10), "ready"),
    "CLAIM": (("now", False, "default", "default", 10), "ready"),
    "CLAIM_THESE": (("now", "[1, 2]"), ""),
    "CLAIM_ADDRESSED": (("now", False, 10), "addressed"),
    "GIVE_BACK": (FENCE, ""),
    "SUCCEED": (FENCE, ""),
    "SUCCEED_ALL": (("[1, 2]", 1, None), ""),
    "KEEP": (("now", "1", "now", *FENCE), ""),
    "RETRY": (("now", "", "{}", *FENCE), ""),
    "FAIL": (("now", "", "", "", "{}", *FENCE), ""),
    "BLOCK_NEW": (("", 10), "new"),
    "NEW_KEYS": ((10,), "new"),
    "FRONT": ((False, "default", 0), "ready"),
    "FRONT_OF_GROUP": ((LANE, 0), "lane"),
    "LAST_OF_KEY": (("key", False, "default", 0), "fair"),
    "GIVE_TURN": ((1, 1), ""),
    "NEXT_IN_GROUP": ((LANE, None, None), "lane"),
    "YIELD": ((LANE, 5, None, None), "lane"),
    "TAKEN": ((LANE,), "lane"),
    "ADMIT": ((LANE, None, None, 1), "lane"),
    "RECHECK": ((LANE,), "lane"),
    "REVOKED": ((), "revoked"),
}
FILL = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000)
    INSERT INTO snappea_task (task_name, enqueued_at, status, run_after, lane, gate)
    SELECT 'some.task', '2026-01-01', CASE WHEN n % 2 = 0 THEN 'ready' ELSE 'scheduled' END, '2026-01-01',
        CASE WHEN n % 5 = 0 THEN 'lane' || n END, CASE WHEN n % 5 = 0 THEN 2 ELSE 0 END
    FROM numbers"""


def plan(text: str, parameters: tuple[Any, ...]) -> str:
    """Return the database's plan for a statement."""
    parameters = tuple(now() if value == "now" else value for value in parameters)
    if connect().vendor == "sqlite":
        rows = raw(connect()).execute(f"EXPLAIN QUERY PLAN {text}", parameters).fetchall()
        return "\n".join(row[3] for row in rows)
    rows = raw(connect()).execute(f"EXPLAIN {POSTGRES.text_of(text)}", parameters).fetchall()
    return "\n".join(line for (line,) in rows)


@pytest.mark.on_both
def test_each_hot_statement_uses_its_index(site: Site) -> None:
    with connections["snappea"].cursor() as cursor:
        cursor.execute(FILL)
        cursor.execute("ANALYZE snappea_task")
    if connect().vendor == "postgresql":
        use_indexes(raw(connect()))
    for name, (parameters, indexes) in HOT.items():
        how = plan(getattr(sql, name), parameters)
        for index in indexes.split():
            assert re.search(rf"\bsnappea_{index}\b", how), f"{name}: {how}"
        assert not re.search(r"Seq Scan on snappea_task|SCAN snappea_task(?! USING)", how), f"{name}: {how}"
        if name != "CLAIM_ADDRESSED":  # of which there are few
            assert "TEMP B-TREE" not in how, f"{name}: {how}"
        if not indexes:
            assert re.search(r"PRIMARY KEY|snappea_task_pkey", how), f"{name}: {how}"
