"""Composes each statement from named fragments, for each database.

A statement is its text for SQLite, which the sqlite3 module runs unchanged. A connection to another database
looks up the template of that text, and composes its own text on first use. In a template, `{UPPER}` is a
phrase that all databases share, `{lower}` a fragment of the dialect, and `?` a parameter.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

from .states import Gate

#: Shared phrases by name. `statements.py` adds its own.
PHRASES: dict[str, str] = {gate.name: str(gate.value) for gate in Gate}


#: Whether a row's result goes to the call that follows it: it is the first of a chain, not added later.
PASSES_RESULT = """CASE WHEN EXISTS (SELECT 1 FROM snappea_batch
                WHERE snappea_batch.id = snappea_task.batch_id
                    AND substr(on_success, 1, 15) = '{"takes_result"')
            THEN NOT EXISTS (SELECT 1 FROM snappea_task AS other
                WHERE other.batch_id = snappea_task.batch_id AND other.batch_id IS NOT NULL
                    AND other.id < snappea_task.id)
            ELSE false END"""


#: How many rows are counted. One more means that there are more, and is shown as "100,000+".
MOST_COUNTED = 100_000


def counted(rows: str) -> str:
    """Return the SQL that counts the rows of a query, and stops at MOST_COUNTED + 1."""
    return f"(SELECT count(*) FROM ({rows} LIMIT {MOST_COUNTED + 1}) AS counted)"


def told(count: int, write: Callable[[int], str] = str) -> str:
    """Return a number of rows as text. `write`: how to write it."""
    return write(min(count, MOST_COUNTED)) + "+" * (count > MOST_COUNTED)


class _Words(dict[str, str]):
    def __missing__(self, name: str) -> str:
        self[name] = PHRASES[name].format_map(self)
        return self[name]


class Dialect:
    """The SQL of one database."""

    #: The placeholder of a parameter.
    parameter: ClassVar[str]
    fragments: ClassVar[Mapping[str, str]]

    def __init__(self) -> None:
        self._words = _Words(self.fragments)

    def compose(self, template: str) -> str:
        """Return a statement in this database's SQL."""
        return template.format_map(self._words).replace("?", self.parameter)


#: The indexes that statements name, as the fragments `{by_...}`.
INDEXES = ("expires", "revoked", "new", "addressed", "next_run")


class SqliteDialect(Dialect):
    """SQLite. Fragments that only several Foremen need are empty."""

    parameter = "?"
    fragments = {
        "begin": "BEGIN IMMEDIATE",
        "true": "1",
        "false": "0",
        "flag": "?",
        "is": "IS",
        # before a column: its stored value, since Django parses columns declared as datetime or bool
        "untyped": "+",
        # id {among}(SELECT id ... {skip_locked}){end}
        "among": "IN ",
        "skip_locked": "",
        "for_update": "",
        "end": "",
        # a column {ids}: the parameter is a JSON list
        "ids": "IN (SELECT value FROM json_each(?))",
        "texts": "IN (SELECT value FROM json_each(?))",
        # a table of one column, `value`: the parameter is a JSON list
        "each": "json_each(?)",
        "returning_id": "",
        # the first queue with a claimable task for a thread
        "first_queue": f"""(SELECT queue FROM snappea_task
            WHERE status = 'ready' AND gate = {Gate.OPEN} AND is_async = 0 ORDER BY queue LIMIT 1)""",
        # the Foreman that asks, that runs the task, or that alone may run it
        "me": "0",
        # lets no other transaction admit tasks; here only one writes anyway
        "hold_gates": "1",
        "set_foreman": "",
        "keep_addressee": "",
        "no_foreman": "",
        "and_mine": "",
        "and_still_mine": "",
        "and_claimed": "",
        "append_error": """errors = substr(errors || json_set(?, '$.attempt', attempts) || char(10),
            CASE WHEN backend IS NULL THEN -20000 ELSE -200000 END)""",
        "after_result_ttl": "datetime(?, '+' || result_ttl || ' seconds')",
        "json_extras": f"""CASE WHEN coalesce(result_ttl, lane, parent_id, batch_id, expires_at, run_after,
            nullif(interruptions, 0), nullif(is_sensitive, 0), -1) <> -1
        THEN json_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
            'lane', lane, 'lane_interval', lane_interval,
            'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
            'passes_result', {PASSES_RESULT}, 'expires_at', expires_at,
            'run_after', run_after, 'is_sensitive', is_sensitive, 'origin',
            json(CASE WHEN coalesce(backend, '') <> '' THEN json_object('backend', backend,
                'overrides', overrides, 'started_at', started_at, 'first_started_at', first_started_at,
                'errors', errors) END)) END""",
        # without statistics of the table, SQLite would choose another index
        **{f"by_{name}": f"INDEXED BY snappea_{name}" for name in INDEXES},
    }


SQLITE = SqliteDialect()
#: Templates by their text for SQLite.
TEMPLATES: dict[str, str] = {}


def statement(template: str) -> str:
    """Return a statement's text for SQLite, and remember its template for other databases."""
    text = SQLITE.compose(template)
    TEMPLATES[text] = template
    return text
