"""All SQL that reads or writes tasks, in the order of a task's life. `dialects.py` explains the syntax.

Each WHERE names the states that its move may start from and, for a running task, the fence. Each question has
a partial index and repeats the index's condition; for a boolean in both ways in which Django writes it, `x`
before 6.1 and `x = {true}` since. The column `lane` names a task's concurrency group.
"""

from .dialects import PHRASES, counted, statement

PHRASES.update(
    # a late outcome touches neither a task that was claimed again nor a new one with the same id
    HELD_CLAIM="claims = ? AND {untyped}started_at {is} ? AND status = 'running'",
    FENCE="id = ? AND {HELD_CLAIM}",
    KEPT="status IN ('failed', 'interrupted', 'cancelled', 'successful')",
    CLAIMABLE="status = 'ready' AND gate = {OPEN}",
    # a task that waits again gives up its uniqueness if an identical call is waiting
    UNIQUE_KEY="""unique_key = CASE WHEN unique_key IS NOT NULL AND (
            EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
                AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
                AND other.id <> snappea_task.id)
            OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
                AND other.unique_running AND other.unique_running = {true}
                AND other.status IN ('ready', 'scheduled', 'running')
                AND other.id <> snappea_task.id)
        ) THEN NULL ELSE unique_key END""",
    # and rejoins its concurrency group, unless only one Foreman may run it
    GATE="""gate = CASE WHEN gate = {ADDRESSED} AND foreman_id IS NOT NULL THEN {ADDRESSED}
            WHEN lane IS NULL AND fair_key IS NULL THEN {OPEN} ELSE {NEW} END""",
    # with `fair_by`, at the end of the line of its key
    REJOIN="turn = NULL, {GATE}",
    # its place in the line of its queue and priority
    PLACE="coalesce(turn, id)",
    FIRST_IN_LINE="ORDER BY priority DESC, {PLACE}, id",
    FIRST_START="first_started_at = coalesce(first_started_at, started_at)",
    # the first parameter: the served queues as a JSON list; NULL: all
    SERVED="(CAST(? AS text) IS NULL OR queue {texts})",
    IS_NEW="gate = {NEW} AND status = 'ready'",
    KEY="coalesce(fair_key, '')",
    IS_BLOCKED="lane IS NOT NULL AND status = 'ready' AND gate = {BLOCKED}",
    IS_PAUSED="queue IN (SELECT snappea_pause.queue FROM snappea_pause)",
    BLOCKED_IN_GROUP="lane = ? AND {IS_BLOCKED} AND {SERVED} AND NOT {IS_PAUSED}",
    # less urgent than the next of their group, and unclaimed
    IS_TO_YIELD="lane = ? AND lane IS NOT NULL AND {CLAIMABLE} AND priority < ? AND {SERVED}",
    HAS_PLACE="lane = ? AND lane IS NOT NULL AND status IN ('ready', 'running') AND gate = {OPEN}",
)

# enqueue

INSERT = statement("""
    INSERT INTO snappea_task (task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at)
    VALUES (?, ?, ?, ?, ?, {flag}, {flag}, ?) {returning_id}""")
#: Many calls that differ only in their `args`, a JSON list of texts. The ids grow in its order.
INSERT_MANY = statement("""
    INSERT INTO snappea_task (task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at)
    SELECT ?, value, ?, ?, ?, {flag}, {flag}, ? FROM {each} {returning_id}""")
#: With all columns that a call may set. Does nothing if an identical unique call exists.
INSERT_MORE = statement("""
    INSERT INTO snappea_task (
        task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at, status, gate, run_after,
        expires_at, result_ttl, parent_id, unique_key, unique_running, lane, lane_limit, lane_interval,
        is_sensitive, backend, overrides, keeps_result, tags, lane_burst, batch_id, fair_key,
        lane_discards)
    VALUES (?, ?, ?, ?, ?, {flag}, {flag}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING {returning_id}""")
IDENTICAL = statement("""
    SELECT id FROM snappea_task WHERE unique_key = ?
        AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')
    UNION ALL SELECT id FROM snappea_task WHERE unique_key = ?
        AND unique_running AND unique_running = {true} AND status IN ('ready', 'scheduled', 'running')
    LIMIT 1""")

#: What an identical call with `on_conflict="replace"` may change.
WAITING_TWIN = statement("""
    SELECT id, lane, {untyped}enqueued_at FROM snappea_task
    WHERE unique_key = ? AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')""")
REPLACE = statement("""
    UPDATE snappea_task SET
        args = ?, kwargs = ?, queue = ?, priority = ?, status = ?, gate = ?, run_after = ?, expires_at = ?,
        lane = ?, lane_limit = ?, lane_interval = ?, lane_burst = ?, lane_discards = ?, tags = ?,
        fair_key = ?, turn = NULL, attempts = 0, interruptions = 0, interruptions_forgiven = 0, steps = ''
    WHERE id = ? AND status IN ('ready', 'scheduled')""")
#: Calls with `unique_for`: HELD takes the key and the current time.
HELD = "SELECT task_id FROM snappea_uniqueuntil WHERE key = ? AND until > ?"
HOLD = """
    INSERT INTO snappea_uniqueuntil (key, task_id, until) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET task_id = excluded.task_id, until = excluded.until
    WHERE snappea_uniqueuntil.until <= ?"""
#: For a task that is about to be cancelled.
RELEASE = statement("""
    DELETE FROM snappea_uniqueuntil WHERE (key, task_id) = (
        SELECT unique_key, id FROM snappea_task
        WHERE id = ? AND status IN ('ready', 'scheduled') {for_update})""")
OUTDATED = "SELECT 1 FROM snappea_uniqueuntil WHERE until <= ? LIMIT 1"
FORGET_UNIQUE = statement("""
    DELETE FROM snappea_uniqueuntil WHERE key {among}(
        SELECT key FROM snappea_uniqueuntil WHERE until <= ? ORDER BY until LIMIT ? {skip_locked}){end}""")

# the Foreman's round

#: What there is to do: see `records.Peek`. With min() PostgreSQL might read all rows, if it planned the
#: statement while the table was small.
PEEK = statement("""
    SELECT (SELECT {untyped}run_after FROM snappea_task WHERE status = 'scheduled' AND run_after IS NOT NULL
            ORDER BY run_after LIMIT 1),
        {first_queue},
        (SELECT queue FROM snappea_task WHERE {CLAIMABLE} AND is_async = {false} ORDER BY queue DESC LIMIT 1),
        EXISTS (SELECT 1 FROM snappea_task WHERE {CLAIMABLE} AND is_async = {true}),
        (SELECT {untyped}expires_at FROM snappea_task {by_expires}
            WHERE expires_at IS NOT NULL AND status IN ('ready', 'scheduled', 'successful')
            ORDER BY expires_at LIMIT 1),
        EXISTS (SELECT 1 FROM snappea_task {by_revoked}
            WHERE is_revoked AND is_revoked = {true} AND status = 'running'),
        EXISTS (SELECT 1 FROM snappea_task {by_new} WHERE {IS_NEW}),
        EXISTS (SELECT 1 FROM snappea_pause),
        EXISTS (SELECT 1 FROM snappea_limit),
        EXISTS (SELECT 1 FROM snappea_pause WHERE replace(heard_by, ' ' || {me} || ' ', '') = heard_by),
        EXISTS (SELECT 1 FROM snappea_task {by_addressed}
            WHERE foreman_id IS NOT NULL AND foreman_id = {me} AND status = 'ready'),
        (SELECT min(next_run) FROM snappea_schedule {by_next_run}
            WHERE NOT is_paused AND is_paused = {false})""")
PROMOTE = statement("""
    UPDATE snappea_task SET status = 'ready' WHERE id {among}(
        SELECT id FROM snappea_task WHERE status = 'scheduled' AND run_after <= ?
        ORDER BY run_after, id LIMIT ? {skip_locked}){end}""")
#: Waiting tasks, and results.
EXPIRE = statement("""
    DELETE FROM snappea_task WHERE id {among}(
        SELECT id FROM snappea_task WHERE expires_at <= ? AND expires_at IS NOT NULL
        AND status IN ('ready', 'scheduled', 'successful')
        ORDER BY expires_at LIMIT ? {skip_locked}){end}
    RETURNING id, task_name, status, lane, batch_id""")
EXPIRE_CLAIMED = statement("DELETE FROM snappea_task WHERE {FENCE}")

#: Each queue with a claimable task: one step through the index for each. Not by min(), as in PEEK.
QUEUES = statement("""
    WITH RECURSIVE waiting (queue) AS (
        SELECT (SELECT queue FROM snappea_task WHERE {CLAIMABLE} AND is_async = ? ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT queue FROM snappea_task
                WHERE {CLAIMABLE} AND is_async = ? AND queue > waiting.queue ORDER BY queue LIMIT 1)
        FROM waiting WHERE waiting.queue IS NOT NULL)
    SELECT queue FROM waiting WHERE queue IS NOT NULL""")
FIRST = statement("""
    SELECT -priority, id, queue FROM snappea_task WHERE {CLAIMABLE} AND is_async = ? AND queue = ?
    {FIRST_IN_LINE} LIMIT ?""")

PHRASES.update(
    START="""UPDATE snappea_task SET status = 'running', {set_foreman}
        started_at = ?, attempts = attempts + 1, claims = claims + 1""",
    # the fields of `records.Claim`; in RETURNING, SQLite 3.40 assumes that no column is NULL
    CLAIM="""-priority, id, claims, task_name, args, kwargs, queue, attempts,
        {untyped}enqueued_at, {untyped}is_async, {untyped}started_at, {json_extras}""",
)
CLAIM = statement("""
    {START} WHERE id {among}(
        SELECT id FROM snappea_task WHERE {CLAIMABLE} AND is_async = ? AND queue = ?
            AND NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = ?)
        {FIRST_IN_LINE} LIMIT ? {skip_locked}){end}
    RETURNING {CLAIM}""")
CLAIM_THESE = statement("""
    {START} WHERE id {among}(
        SELECT id FROM snappea_task WHERE id {ids} AND {untyped}status = 'ready' {skip_locked}){end}
    RETURNING {CLAIM}""")
#: Tasks that only this Foreman may run.
CLAIM_ADDRESSED = statement("""
    {START} WHERE id {among}(
        SELECT id FROM snappea_task
        WHERE foreman_id IS NOT NULL AND foreman_id = {me} AND status = 'ready' AND is_async = ?
            AND NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = snappea_task.queue)
        {FIRST_IN_LINE} LIMIT ? {skip_locked}){end}
    RETURNING {CLAIM}""")

GIVE_BACK = statement("""
    UPDATE snappea_task SET {keep_addressee}
        status = CASE WHEN is_revoked THEN 'cancelled' ELSE 'ready' END,
        started_at = NULL, attempts = attempts - 1, {UNIQUE_KEY}, {GATE}
    WHERE {FENCE} {and_still_mine}""")
SUCCEED = EXPIRE_CLAIMED
#: Several tasks with the same `claims` and `started_at`, by a JSON list of ids: twice as fast.
SUCCEED_ALL = statement("""
    DELETE FROM snappea_task
    WHERE id {ids} AND {HELD_CLAIM}""")
KEEP = statement("""
    UPDATE snappea_task SET {no_foreman}
        status = 'successful', finished_at = ?, result = ?, expires_at = ?, error = ''
    WHERE {FENCE}""")
#: The same for several tasks without results, by a JSON list of ids.
KEEP_ALL = statement("""
    UPDATE snappea_task SET {no_foreman}
        status = 'successful', finished_at = ?, expires_at = ?, error = ''
    WHERE id {ids} AND {HELD_CLAIM}""")
#: Does nothing to a task that is not kept.
KEEP_WITHOUT_RESULT = statement("""
    UPDATE snappea_task SET {no_foreman}
        status = 'successful', finished_at = ?, expires_at = {after_result_ttl},
        error = CASE WHEN keeps_result THEN ? ELSE '' END
    WHERE {FENCE} AND result_ttl IS NOT NULL""")
RETRY = statement("""
    UPDATE snappea_task SET {keep_addressee}
        status = 'scheduled', run_after = ?, error = ?, {append_error}, {FIRST_START}, {UNIQUE_KEY}, {REJOIN}
    WHERE {FENCE}""")
FAIL = statement("""
    UPDATE snappea_task SET {no_foreman}
        status = 'failed', finished_at = ?, expires_at = NULL, exception = ?, place = ?, error = ?,
        {append_error}
    WHERE {FENCE}""")
TERMINATE = statement("""
    UPDATE snappea_task SET {no_foreman}
        status = 'cancelled', finished_at = ?, expires_at = NULL, error = ?, {append_error}
    WHERE {FENCE}""")
INTERRUPT = statement("""
    UPDATE snappea_task SET {no_foreman}
        status = CASE WHEN is_revoked THEN 'cancelled'
            WHEN acks_late AND gate <> {ADDRESSED} AND interruptions - interruptions_forgiven + 1 < ?
                THEN 'ready'
            ELSE 'interrupted' END,
        interruptions = interruptions + 1, finished_at = ?, error = ?,
        {append_error}, {FIRST_START}, {UNIQUE_KEY}, {REJOIN}
    WHERE {FENCE}
    RETURNING status, batch_id""")
#: For an unusable row; `store.set_aside()` adds the columns to repair.
SET_ASIDE = """
    UPDATE snappea_task SET
        status = CASE WHEN status IN ('interrupted', 'successful', 'cancelled') THEN status ELSE 'failed' END,
        finished_at = ?, exception = 'UnusableRow', place = '', error = ? {repairs} WHERE id = ?"""
PROGRESS = statement("""
    UPDATE snappea_task SET progress_done = ?, progress_total = ?, progress_note = ? WHERE {FENCE}""")
#: What a task has kept, with its cursor. Interruptions until then do not count.
STEPS = statement("SELECT CAST(steps AS text) FROM snappea_task WHERE {FENCE}")
KEEP_STEPS = statement("""
    UPDATE snappea_task SET steps = ?, interruptions_forgiven = interruptions WHERE {FENCE}""")
LOG = statement("SELECT CAST(log AS text) FROM snappea_task WHERE {FENCE}")
SET_LOG = statement("UPDATE snappea_task SET log = ? WHERE {FENCE}")

# operations

REQUEUE = statement("""
    UPDATE snappea_task SET
        status = CASE WHEN CAST(? AS text) IS NULL THEN 'ready' ELSE 'scheduled' END, run_after = ?,
        attempts = 0, interruptions = 0, interruptions_forgiven = 0, is_revoked = {false},
        steps = CASE WHEN status = 'successful' THEN '' ELSE steps END,
        started_at = NULL, first_started_at = NULL, finished_at = NULL, expires_at = NULL, result = NULL,
        progress_done = NULL, progress_total = NULL, progress_note = '', {UNIQUE_KEY}, {REJOIN}
    WHERE id = ? AND claims = ? AND (status = 'scheduled' OR {KEPT})""")
CANCEL = "DELETE FROM snappea_task WHERE id = ? AND status IN ('ready', 'scheduled')"
HAND_OVER = """
    INSERT INTO snappea_handover (key, task_name, call, expires_at) VALUES (?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""
DELETE = statement("DELETE FROM snappea_task WHERE id = ? AND claims = ? AND {KEPT}")
REVOKE = statement("UPDATE snappea_task SET is_revoked = {true} WHERE id = ? AND status = 'running'")
_NOTE_LAST = """
    UPDATE snappea_schedule SET last_outcome = ? WHERE last_task_id = ?
        AND NOT EXISTS (SELECT 1 FROM snappea_task WHERE id = snappea_schedule.last_task_id)"""
_NOTE_RUN = """
    UPDATE snappea_schedulerun SET outcome = ? WHERE task_id = ?
        AND NOT EXISTS (SELECT 1 FROM snappea_task WHERE id = snappea_schedulerun.task_id)"""
#: On the schedule that enqueued it, and on its run: what happened to a task that has no row any more.
NOTE_GONE = (_NOTE_LAST, _NOTE_RUN)

# pauses

PAUSE = "INSERT INTO snappea_pause (queue, since) VALUES (?, ?) ON CONFLICT DO NOTHING"
RESUME = "DELETE FROM snappea_pause WHERE queue = ?"
PAUSED = statement("SELECT queue, {untyped}since FROM snappea_pause ORDER BY queue")
#: Pauses that this Foreman has not confirmed.
UNHEARD = statement("""
    SELECT queue, {untyped}since FROM snappea_pause
    WHERE replace(heard_by, ' ' || {me} || ' ', '') = heard_by""")
CONFIRM = statement("""
    UPDATE snappea_pause SET heard_by = heard_by || ' ' || {me} || ' ' WHERE queue = ? AND since = ?""")
#: The Foremen that have confirmed a pause.
HEARD_BY = "SELECT heard_by FROM snappea_pause WHERE queue = ?"
#: Recheck what could be claimed from a paused queue, so that other queues can use its groups.
RECALL = statement("""
    UPDATE snappea_task SET gate = {NEW} WHERE lane IS NOT NULL AND {CLAIMABLE} AND queue = ?""")
BLOCKED_GROUPS = statement("SELECT DISTINCT lane FROM snappea_task WHERE {IS_BLOCKED}")

# concurrency groups

#: In the order of their keys, from one on; those without a key come first. The fields of `records.Newcomer`.
BLOCK_NEW = statement("""
    UPDATE snappea_task SET gate = {BLOCKED} WHERE id {among}(
        SELECT id FROM snappea_task {by_new} WHERE {IS_NEW} AND {KEY} >= ?
        ORDER BY {KEY}, id LIMIT ? {skip_locked}){end}
    RETURNING id, lane, fair_key, turn, {untyped}is_async, queue, priority, lane_discards AND claims = 0""")
#: Each key with newcomers: one step through the index for each. For PostgreSQL not by min(), as in PEEK.
NEW_KEYS = statement("""
    WITH RECURSIVE keys (key) AS (
        SELECT (SELECT {KEY} FROM snappea_task {by_new} WHERE {IS_NEW} ORDER BY {KEY}, id LIMIT 1)
        UNION ALL
        SELECT (SELECT {KEY} FROM snappea_task {by_new} WHERE {IS_NEW} AND {KEY} > keys.key
            ORDER BY {KEY}, id LIMIT 1)
        FROM keys WHERE keys.key IS NOT NULL)
    SELECT key FROM keys WHERE key IS NOT NULL LIMIT ?""")
#: The places at the front of a line and of a group, and the last place of a key. Newcomers have none yet.
FRONT = statement("""
    SELECT {PLACE} FROM snappea_task WHERE {CLAIMABLE} AND is_async = ? AND queue = ? AND priority = ?
    ORDER BY {PLACE} LIMIT 1""")
FRONT_OF_GROUP = statement("""
    SELECT {PLACE} FROM snappea_task
    WHERE lane = ? AND {IS_BLOCKED} AND priority = ? AND (turn IS NOT NULL OR fair_key IS NULL)
    ORDER BY {PLACE} LIMIT 1""")
LAST_OF_KEY = statement("""
    SELECT turn FROM snappea_task
    WHERE fair_key = ? AND is_async = ? AND queue = ? AND priority = ?
        AND turn IS NOT NULL AND status = 'ready'
    ORDER BY turn DESC LIMIT 1""")
GIVE_TURN = statement("""
    UPDATE snappea_task SET turn = ?, gate = CASE WHEN lane IS NULL THEN {OPEN} ELSE gate END WHERE id = ?""")
NEXT_IN_GROUP = statement("""
    SELECT task_name, priority, lane_limit, lane_interval, lane_burst FROM snappea_task
    WHERE {BLOCKED_IN_GROUP} {FIRST_IN_LINE} LIMIT 1""")
#: Block unclaimed tasks that are less urgent than the next of their group. The order lets PostgreSQL use the
#: index of groups, whatever it knows about the table.
YIELD = statement("""
    UPDATE snappea_task SET gate = {BLOCKED} WHERE id {among}(
        SELECT id FROM snappea_task WHERE {IS_TO_YIELD}
        {FIRST_IN_LINE} {skip_locked}){end}""")
#: How many of a group are claimable, and how many run.
TAKEN = statement("""
    SELECT status, count(*) FROM snappea_task WHERE {HAS_PLACE}
    GROUP BY status""")
ADMIT = statement("""
    UPDATE snappea_task SET gate = {OPEN} WHERE id {among}(
        SELECT id FROM snappea_task WHERE {BLOCKED_IN_GROUP}
        {FIRST_IN_LINE} LIMIT ? {skip_locked}){end}""")
#: Newcomers that must not wait, unless a pause holds them back.
DISCARD = statement("""
    DELETE FROM snappea_task WHERE id {ids} AND {untyped}status = 'ready' AND gate = {BLOCKED} AND {SERVED}
        AND NOT {IS_PAUSED}
    RETURNING id, task_name, status, lane, batch_id""")
#: When the bucket of a rate is full again.
OPENING = statement("SELECT {untyped}opens_at FROM snappea_opening WHERE lane = ?")
CLOSE = """
    INSERT INTO snappea_opening (lane, opens_at) VALUES (?, ?)
    ON CONFLICT (lane) DO UPDATE SET opens_at = excluded.opens_at"""
OLD_OPENING = "SELECT 1 FROM snappea_opening WHERE opens_at <= ? LIMIT 1"
FORGET_OPENINGS = statement("""
    DELETE FROM snappea_opening WHERE lane {among}(
        SELECT lane FROM snappea_opening WHERE opens_at <= ? ORDER BY opens_at LIMIT ? {skip_locked}){end}""")
HOLD_GATES = statement("SELECT {hold_gates}")
#: Make the first blocked task of a group new again, so that the Foreman checks the group.
RECHECK = statement("""
    UPDATE snappea_task SET gate = {NEW} WHERE id {among}(
        SELECT id FROM snappea_task WHERE lane = ? AND {IS_BLOCKED}
        {FIRST_IN_LINE} LIMIT 1 {skip_locked}){end}""")
RECHECK_ALL = statement("""
    UPDATE snappea_task SET gate = {NEW} WHERE id {among}(
        SELECT id FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready'
            AND gate IN ({OPEN}, {BLOCKED}) {skip_locked}){end}""")

# limits that were changed at run time

LIMITS = "SELECT lane, max_concurrency, rate_interval, rate_burst FROM snappea_limit ORDER BY lane"
SET_LIMITS = """
    INSERT INTO snappea_limit (lane, max_concurrency, rate_interval, rate_burst) VALUES (?, ?, ?, ?)
    ON CONFLICT (lane) DO UPDATE SET
        max_concurrency = coalesce(excluded.max_concurrency, snappea_limit.max_concurrency),
        rate_burst = CASE WHEN excluded.rate_interval IS NULL
            THEN snappea_limit.rate_burst ELSE excluded.rate_burst END,
        rate_interval = coalesce(excluded.rate_interval, snappea_limit.rate_interval)"""
RESET_LIMITS = "DELETE FROM snappea_limit WHERE lane = ?"
#: The groups of a task that have ready tasks, and those of a group that could be claimed now.
GROUPS = statement("""
    SELECT DISTINCT lane FROM snappea_task
    WHERE task_name = ? AND lane IS NOT NULL AND status = 'ready' AND gate IN ({OPEN}, {BLOCKED})""")
RECALL_GROUP = statement("""
    UPDATE snappea_task SET gate = {NEW} WHERE id {among}(
        SELECT id FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND {CLAIMABLE}
        {FIRST_IN_LINE} {skip_locked}){end}""")

# looking

#: Without an index, which would cost each task a tenth of its time: it is only run at the start.
RUNNING = statement("""
    SELECT id, claims, {untyped}started_at, task_name, batch_id FROM snappea_task
    WHERE status = 'running' {and_mine} ORDER BY id""")
REVOKED = statement("""
    SELECT id, claims, {untyped}started_at FROM snappea_task {by_revoked}
    WHERE is_revoked AND is_revoked = {true} AND status = 'running'""")
DEPTH = statement(
    "SELECT "
    + counted("""
        SELECT 1 FROM snappea_task WHERE {CLAIMABLE}
        UNION ALL SELECT 1 FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready'
        UNION ALL SELECT 1 FROM snappea_task
            WHERE lane IS NOT NULL AND status = 'ready' AND gate <> {OPEN}
        UNION ALL SELECT 1 FROM snappea_task {by_new} WHERE {IS_NEW} AND lane IS NULL""")
)
