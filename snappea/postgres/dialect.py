"""The queue's statements for PostgreSQL, where several Foremen share the table."""

from ..queue.dialects import INDEXES, PASSES_RESULT, TEMPLATES, Dialect
from ..queue.states import Gate

#: The first number of our advisory locks. The second one: 1 gates, 2 schedules, 3 vacuum, 10 a move.
LOCKS = 1936613744
#: The Foreman that asks; NULL, which finds nothing, on any other connection.
_ME = "nullif(current_setting('snappea.foreman', true), '')::bigint"
_READY = f"FROM snappea_task WHERE status = 'ready' AND gate = {Gate.OPEN} AND is_async = false"
_LAST_QUEUE = f"(SELECT queue {_READY} ORDER BY queue DESC LIMIT 1)"
_MOMENT = "to_char({}, 'YYYY-MM-DD HH24:MI:SS.US')"


class PostgresDialect(Dialect):
    """PostgreSQL. A Foreman skips rows that another one has locked, and finds its own by its id."""

    parameter = "%s"
    fragments = {
        "begin": "BEGIN",
        "true": "true",
        "false": "false",
        "flag": "?::int::boolean",
        "is": "IS NOT DISTINCT FROM",
        "untyped": "",
        # an array: a subquery might run again for each row, and lock other rows
        "among": "= ANY(ARRAY",
        "end": ")",
        "ids": "= ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(?::json)))",
        "texts": "IN (SELECT value FROM json_array_elements_text(?::json))",
        "each": "json_array_elements_text(?::json)",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
        "for_update": "FOR UPDATE",
        "returning_id": "RETURNING id",
        # from the last one, since there are dead rows at the beginning of the index
        "first_queue": f"""coalesce(
            (SELECT queue {_READY} AND queue < {_LAST_QUEUE} ORDER BY queue LIMIT 1), {_LAST_QUEUE})""",
        "me": _ME,
        "hold_gates": f"pg_advisory_xact_lock({LOCKS}, 1)",
        "set_foreman": f"foreman_id = {_ME},",
        "keep_addressee": f"foreman_id = CASE WHEN gate = {Gate.ADDRESSED} THEN foreman_id END,",
        "no_foreman": "foreman_id = NULL,",
        "and_mine": f"AND foreman_id IS NOT NULL AND foreman_id = {_ME}",
        "and_still_mine": f"AND foreman_id IS NOT DISTINCT FROM {_ME}",
        "and_claimed": "AND foreman_id IS NOT NULL",
        "append_error": """errors = right(errors || '{"attempt": ' || attempts || substr(?, 17) || chr(10),
            CASE WHEN backend IS NULL THEN 20000 ELSE 200000 END)""",
        "after_result_ttl": "CAST(? AS timestamptz) + make_interval(secs => result_ttl)",
        "json_extras": f"""CASE WHEN num_nonnulls(result_ttl, lane, parent_id, batch_id, expires_at,
            run_after, nullif(interruptions, 0), nullif(is_sensitive, false), backend) > 0
        THEN json_build_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
            'lane', lane, 'lane_interval', lane_interval,
            'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
            'passes_result', {PASSES_RESULT},
            'expires_at', {_MOMENT.format("expires_at")}, 'run_after', {_MOMENT.format("run_after")},
            'is_sensitive', is_sensitive, 'origin',
            CASE WHEN backend <> '' THEN json_build_object('backend', backend,
                'overrides', overrides, 'started_at', {_MOMENT.format("started_at")},
                'first_started_at', {_MOMENT.format("first_started_at")}, 'errors', errors) END)::text END""",
        **{f"by_{name}": "" for name in INDEXES},
    }

    def __init__(self) -> None:
        super().__init__()
        self._composed: dict[str, str] = {}

    def text_of(self, statement: str) -> str:
        """Return the text for PostgreSQL of a statement, which is given as for SQLite."""
        text = self._composed.get(statement)
        if text is None:
            template = TEMPLATES.get(statement)
            text = self.compose(template) if template else statement.replace("?", self.parameter)
            self._composed[statement] = text
        return text
