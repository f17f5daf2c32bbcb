"""The statements of a task's life, in its order: all SQL of the hot path.

Written for SQLite; what stands in /*+ ... */ holds on PostgreSQL only, where there may be several Foremen,
and /*me*/ 0 or @me is the one that asks: `postgres.py` translates.

Each WHERE names the states that its move may start from, and for a running task the fence, `claims` and
`started_at`: a late finish does not touch a task that was claimed again, or another one that got its id.
Each question has a partial index, and repeats that index's condition: for a boolean in both ways in which
Django writes it, `x` before 6.1 and `x = 1` since.
"""

# what a running task takes along when it has to wait again: its uniqueness, unless an identical
# call waits by now; and it is sorted into its lane anew
_UNIQUE_KEY = """
        unique_key = CASE WHEN unique_key IS NOT NULL AND (
            EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
                AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
                AND other.id <> snappea_task.id)
            OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
                AND other.unique_running AND other.unique_running = 1
                AND other.status IN ('ready', 'scheduled', 'running')
                AND other.id <> snappea_task.id)
        ) THEN NULL ELSE unique_key END"""
_GATE = """
        gate = CASE /*+ WHEN gate = 3 AND foreman_id IS NOT NULL THEN 3 */
            WHEN lane IS NULL THEN 0 ELSE 1 END"""
#: It is nobody's any more, unless it is for one Foreman only; nobody's at all.
_PUT_DOWN = "/*+ foreman_id = CASE WHEN gate = 3 THEN foreman_id END, */"
_LET_GO = "/*+ foreman_id = NULL, */"
# the newest of the errors, each on a line with its attempt (and its traceback, where a backend of
# django.tasks enqueued it): the column is bounded
_ERRORS = """errors = substr(errors || json_set(?, '$.attempt', attempts) || char(10),
            CASE WHEN backend IS NULL THEN -20000 ELSE -200000 END)"""
_STARTED = "first_started_at = coalesce(first_started_at, started_at)"
_FENCE = "id = ? AND claims = ? AND +started_at IS /*+ NOT DISTINCT FROM */ ? AND status = 'running'"

# enqueue

INSERT = """
    INSERT INTO snappea_task (task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at)
    VALUES (?, ?, ?, ?, ?, ?/*+ ::int::boolean */, ?/*+ ::int::boolean */, ?)"""
#: On PostgreSQL: many at once, in the order of the calls, of which each column is a list; their ids grow.
INSERT_MANY = """
    INSERT INTO snappea_task (task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at)
    SELECT *, CAST(? AS timestamptz) FROM
        unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::smallint[], ?::int[]::boolean[],
            ?::int[]::boolean[])"""
#: The same with all that a call may have beside. Does nothing if it is to be unique, and is not.
INSERT_MORE = """
    INSERT INTO snappea_task (
        task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at, status, gate, run_after,
        expires_at, result_ttl, parent_id, unique_key, unique_running, lane, lane_limit, lane_interval,
        is_sensitive, backend, overrides)
    VALUES (?, ?, ?, ?, ?, ?/*+ ::int::boolean */, ?/*+ ::int::boolean */, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
        ?, ?, ?)
    ON CONFLICT DO NOTHING"""
IDENTICAL = """
    SELECT id FROM snappea_task WHERE unique_key = :key
        AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')
    UNION ALL SELECT id FROM snappea_task WHERE unique_key = :key
        AND unique_running AND unique_running = 1 AND status IN ('ready', 'scheduled', 'running')
    LIMIT 1"""

# the Foreman's round

PROMOTE = """
    UPDATE snappea_task SET status = 'ready' WHERE id IN (
        SELECT id FROM snappea_task WHERE status = 'scheduled' AND run_after <= ?
        ORDER BY run_after, id LIMIT ? /*+ FOR UPDATE SKIP LOCKED */)"""
#: What there is to do: when the next is due, which ends the queues have, what most often is not there, and
#: when the next tick is. Not by min(): PostgreSQL would look at all rows if there were few when it planned.
GLANCE = """
    SELECT (SELECT +run_after FROM snappea_task WHERE status = 'scheduled' AND run_after IS NOT NULL
            ORDER BY run_after LIMIT 1),
        (SELECT queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = 0
            ORDER BY queue LIMIT 1),
        (SELECT queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = 0
            ORDER BY queue DESC LIMIT 1),
        EXISTS (SELECT 1 FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = 1),
        (SELECT +expires_at FROM snappea_task INDEXED BY snappea_expires
            WHERE expires_at IS NOT NULL AND status IN ('ready', 'scheduled', 'successful')
            ORDER BY expires_at LIMIT 1),
        EXISTS (SELECT 1 FROM snappea_task INDEXED BY snappea_revoked
            WHERE is_revoked AND is_revoked = 1 AND status = 'running'),
        EXISTS (SELECT 1 FROM snappea_task INDEXED BY snappea_new WHERE gate = 1 AND status = 'ready'),
        EXISTS (SELECT 1 FROM snappea_pause),
        EXISTS (SELECT 1 FROM snappea_pause WHERE replace(heard_by, ' ' || /*me*/ 0 || ' ', '') = heard_by),
        EXISTS (SELECT 1 FROM snappea_task INDEXED BY snappea_foreman
            WHERE foreman_id IS NOT NULL AND foreman_id = /*me*/ 0 AND status = 'ready'),
        (SELECT min(next_run) FROM snappea_schedule INDEXED BY snappea_next_run
            WHERE NOT is_paused AND is_paused = 0)"""
EXPIRE = """
    DELETE FROM snappea_task WHERE id IN (
        SELECT id FROM snappea_task WHERE expires_at <= ? AND expires_at IS NOT NULL
        AND status IN ('ready', 'scheduled', 'successful')
        ORDER BY expires_at LIMIT ? /*+ FOR UPDATE SKIP LOCKED */)
    RETURNING id, task_name, status, lane"""
EXPIRE_CLAIMED = f"DELETE FROM snappea_task WHERE {_FENCE}"

#: Names each queue in which a task may be claimed, with one step through the index for each.
QUEUES = """
    WITH RECURSIVE waiting (queue) AS (
        SELECT min(queue) FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = :is_async
        UNION ALL
        SELECT (SELECT min(queue) FROM snappea_task
                WHERE status = 'ready' AND gate = 0 AND is_async = :is_async AND queue > waiting.queue)
        FROM waiting WHERE waiting.queue IS NOT NULL)
    SELECT queue FROM waiting WHERE queue IS NOT NULL"""
FIRST = """
    SELECT -priority, id FROM snappea_task
    WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue = ?
    ORDER BY priority DESC, id LIMIT ?"""
# In RETURNING, SQLite 3.40 takes every column for NOT NULL; and an expression is not parsed as a column
# of type datetime would be.
_CLAIM = """
    UPDATE snappea_task
    SET status = 'running', /*+ foreman_id = @me, */
        started_at = ?, attempts = attempts + 1, claims = claims + 1
    WHERE id IN ({which})
    RETURNING -priority, id, claims, task_name, args, kwargs, queue, attempts, +enqueued_at, +is_async,
        +started_at, CASE WHEN coalesce(result_ttl, lane, parent_id, expires_at, run_after,
            nullif(interruptions, 0), nullif(is_sensitive, 0), -1) <> -1
        THEN json_array(result_ttl, lane, lane_interval, interruptions, parent_id, expires_at, run_after,
            is_sensitive, json(CASE WHEN coalesce(backend, '') <> ''
                THEN json_array(backend, overrides, started_at, first_started_at, errors) END)) END"""
CLAIM = _CLAIM.format(
    which="""SELECT id FROM snappea_task
        WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue = ?
            AND NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = ?)
        ORDER BY priority DESC, id LIMIT ? /*+ FOR UPDATE SKIP LOCKED */"""
)
CLAIM_THESE = _CLAIM.format(
    which="""SELECT id FROM snappea_task WHERE id IN (SELECT value FROM json_each(?))
        /*+ AND status = 'ready' FOR UPDATE SKIP LOCKED */"""
)
#: What is for this Foreman only.
CLAIM_ADDRESSED = _CLAIM.format(
    which="""SELECT id FROM snappea_task
        WHERE foreman_id IS NOT NULL AND foreman_id = /*me*/ 0 AND status = 'ready' AND is_async = ?
            AND NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = snappea_task.queue)
        ORDER BY priority DESC, id LIMIT ? /*+ FOR UPDATE SKIP LOCKED */"""
)

GIVE_BACK = f"""
    UPDATE snappea_task SET {_PUT_DOWN}
        status = CASE WHEN is_revoked THEN 'cancelled' ELSE 'ready' END,
        started_at = NULL, attempts = attempts - 1, {_UNIQUE_KEY}, {_GATE}
    WHERE {_FENCE} /*+ AND foreman_id IS NOT DISTINCT FROM @me */"""
SUCCEED = EXPIRE_CLAIMED
#: Several at once of one moment that have been claimed equally often, by a JSON list of ids: twice as fast.
SUCCEED_ALL = """
    DELETE FROM snappea_task
    WHERE id IN (SELECT value FROM json_each(?)) AND claims = ?
        AND +started_at IS /*+ NOT DISTINCT FROM */ ? AND status = 'running'"""
KEEP = f"""
    UPDATE snappea_task SET {_LET_GO}
        status = 'successful', finished_at = ?, result = ?, expires_at = ?, error = ''
    WHERE {_FENCE}"""
#: Does nothing to a task that keeps no result.
KEEP_WITHOUT_RESULT = f"""
    UPDATE snappea_task SET {_LET_GO} status = 'successful', finished_at = ?,
        expires_at = datetime(?, '+' || result_ttl || ' seconds'), error = ?
    WHERE {_FENCE} AND result_ttl IS NOT NULL"""
RETRY = f"""
    UPDATE snappea_task SET {_PUT_DOWN}
        status = 'scheduled', run_after = ?, error = ?, {_ERRORS}, {_STARTED}, {_UNIQUE_KEY}, {_GATE}
    WHERE {_FENCE}"""
FAIL = f"""
    UPDATE snappea_task SET {_LET_GO}
        status = 'failed', finished_at = ?, expires_at = NULL, exception = ?, place = ?, error = ?, {_ERRORS}
    WHERE {_FENCE}"""
TERMINATE = f"""
    UPDATE snappea_task SET {_LET_GO}
        status = 'cancelled', finished_at = ?, expires_at = NULL, error = ?, {_ERRORS}
    WHERE {_FENCE}"""
INTERRUPT = f"""
    UPDATE snappea_task SET {_LET_GO}
        status = CASE WHEN is_revoked THEN 'cancelled'
            WHEN acks_late /*+ AND gate <> 3 */ AND interruptions + 1 < ? THEN 'ready' ELSE 'interrupted' END,
        interruptions = interruptions + 1, finished_at = ?, error = ?, {_ERRORS}, {_STARTED}, {_UNIQUE_KEY},
        {_GATE}
    WHERE {_FENCE}
    RETURNING status"""
#: Of a row that nobody can work with; what is to be put right goes into the braces. Past errors are no more
#: to be trusted than the rest.
SET_ASIDE = """
    UPDATE snappea_task SET
        status = CASE WHEN status IN ('interrupted', 'successful', 'cancelled') THEN status ELSE 'failed' END
        {columns}, finished_at = ?, exception = 'UnusableRow', place = '', error = ?
    WHERE id = ?"""
PROGRESS = f"""
    UPDATE snappea_task SET progress_done = ?, progress_total = ?, progress_note = ? WHERE {_FENCE}"""

# what people decide

_KEPT = "status IN ('failed', 'interrupted', 'cancelled', 'successful')"
REQUEUE = f"""
    UPDATE snappea_task SET
        status = CASE WHEN CAST(? AS text) IS NULL THEN 'ready' ELSE 'scheduled' END, run_after = ?,
        attempts = 0, interruptions = 0, is_revoked = 0,
        started_at = NULL, first_started_at = NULL, finished_at = NULL, expires_at = NULL, result = NULL,
        progress_done = NULL, progress_total = NULL, progress_note = '', {_UNIQUE_KEY}, {_GATE}
    WHERE id = ? AND claims = ? AND (status = 'scheduled' OR {_KEPT})"""
CANCEL = "DELETE FROM snappea_task WHERE id = ? AND status IN ('ready', 'scheduled')"
HAND_OVER = """
    INSERT INTO snappea_handover (key, task_name, call, expires_at) VALUES (?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""
DELETE = f"DELETE FROM snappea_task WHERE id = ? AND claims = ? AND {_KEPT}"
REVOKE = "UPDATE snappea_task SET is_revoked = 1 WHERE id = ? AND status = 'running'"
#: Of a task whose row is gone, on the schedule that enqueued it.
NOTE_GONE = """
    UPDATE snappea_schedule SET last_outcome = ? WHERE last_task_id = ?
        AND NOT EXISTS (SELECT 1 FROM snappea_task WHERE id = snappea_schedule.last_task_id)"""

# pauses

PAUSE = "INSERT INTO snappea_pause (queue, since) VALUES (?, ?) ON CONFLICT DO NOTHING"
RESUME = "DELETE FROM snappea_pause WHERE queue = ?"
PAUSED = "SELECT queue, +since FROM snappea_pause ORDER BY queue"
#: Which Foremen have confirmed a pause.
HEARD_BY = "SELECT heard_by FROM snappea_pause WHERE queue = ?"
#: On PostgreSQL: how many Foremen at work have not confirmed a pause.
UNCONFIRMED = """
    SELECT count(*) FROM snappea_presence, snappea_pause
    WHERE queue = ? AND replace(heard_by, ' ' || snappea_presence.id || ' ', '') = heard_by
        AND greatest(seen_at, pg_postmaster_start_time()) > clock_timestamp() - make_interval(secs => ?)"""
#: Of a queue that is paused: let those back behind their gates that could have been claimed next.
RECALL = """
    UPDATE snappea_task SET gate = 1
    WHERE lane IS NOT NULL AND status = 'ready' AND gate = 0 AND queue = ?"""
LANES = "SELECT DISTINCT lane FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready' AND gate = 2"

# lanes

NEWCOMERS = """
    UPDATE snappea_task SET gate = 2 WHERE id IN (
        SELECT id FROM snappea_task INDEXED BY snappea_new
        WHERE gate = 1 AND status = 'ready' ORDER BY id LIMIT ? /*+ FOR UPDATE SKIP LOCKED */)
    RETURNING lane"""
# :served: the queues that are served, as a JSON list; NULL: all
_HELD = """lane = :lane AND lane IS NOT NULL AND status = 'ready' AND gate = 2
        AND (CAST(:served AS text) IS NULL OR queue IN (SELECT value FROM json_each(:served)))
        AND queue NOT IN (SELECT snappea_pause.queue FROM snappea_pause)"""
LANE = f"""
    SELECT lane_limit, lane_interval, priority FROM snappea_task
    WHERE {_HELD} ORDER BY priority DESC, id LIMIT 1"""
#: Let those of a lane back that are less urgent than its next one and not yet claimed.
YIELD = """
    UPDATE snappea_task SET gate = 2 WHERE id IN (
        SELECT id FROM snappea_task
        WHERE lane = :lane AND lane IS NOT NULL AND status = 'ready' AND gate = 0 AND priority < :priority
            AND (CAST(:served AS text) IS NULL OR queue IN (SELECT value FROM json_each(:served)))
        /*+ ORDER BY id FOR UPDATE SKIP LOCKED */)"""
TAKEN = """
    SELECT status, count(*) FROM snappea_task
    WHERE lane = ? AND lane IS NOT NULL AND status IN ('ready', 'running') AND gate = 0 GROUP BY status"""
ADMIT = f"""
    UPDATE snappea_task SET gate = 0 WHERE id IN (
        SELECT id FROM snappea_task WHERE {_HELD} ORDER BY priority DESC, id LIMIT :room
        /*+ FOR UPDATE SKIP LOCKED */)"""
#: Let somebody look at a lane again: its first task is a newcomer once more.
STIR = """
    UPDATE snappea_task SET gate = 1 WHERE id IN (
        SELECT id FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = 2
        ORDER BY priority DESC, id LIMIT 1 /*+ FOR UPDATE SKIP LOCKED */)"""
STIR_ALL = """
    UPDATE snappea_task SET gate = 1 WHERE id IN (
        SELECT id FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready' AND gate IN (0, 2)
        /*+ FOR UPDATE SKIP LOCKED */)"""

# looking

#: Without an index: it is asked at the start only, and an index would cost each task a tenth of its time.
RUNNING = """
    SELECT id, claims, +started_at, task_name FROM snappea_task
    WHERE status = 'running' /*+ AND foreman_id IS NOT NULL AND foreman_id = @me */ ORDER BY id"""
REVOKED = """
    SELECT id, claims, +started_at FROM snappea_task INDEXED BY snappea_revoked
    WHERE is_revoked AND is_revoked = 1 AND status = 'running'"""
DEPTH = """
    SELECT (SELECT count(*) FROM snappea_task WHERE status = 'ready' AND gate = 0)
        + (SELECT count(*) FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready')
        + (SELECT count(*) FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0)"""
