-- celery.handover._BORROW, SQLite
UPDATE snappea_handover SET taken_by = ? WHERE key = ? AND taken_by IN ('', ?)

-- celery.handover._BORROW, PostgreSQL
UPDATE snappea_handover SET taken_by = %s WHERE key = %s AND taken_by IN ('', %s)

-- celery.handover._EXPIRE, SQLite
DELETE FROM snappea_handover WHERE expires_at <= ?

-- celery.handover._EXPIRE, PostgreSQL
DELETE FROM snappea_handover WHERE expires_at <= %s

-- celery.handover._REVOKE, SQLite
DELETE FROM snappea_handover WHERE key = ? AND taken_by = ''

-- celery.handover._REVOKE, PostgreSQL
DELETE FROM snappea_handover WHERE key = %s AND taken_by = ''

-- celery.handover._SEND_AGAIN, both
UPDATE snappea_handover SET sent_at = NULL WHERE sent_at IS NOT NULL AND taken_by = ''

-- celery.handover._SENT, SQLite
UPDATE snappea_handover SET sent_at = ? WHERE key = ?

-- celery.handover._SENT, PostgreSQL
UPDATE snappea_handover SET sent_at = %s WHERE key = %s

-- celery.handover._TAKE, SQLite
DELETE FROM snappea_handover WHERE key = ?

-- celery.handover._TAKE, PostgreSQL
DELETE FROM snappea_handover WHERE key = %s

-- celery.handover._UNSENT, SQLite
SELECT key, call FROM snappea_handover WHERE sent_at IS NULL ORDER BY rowid LIMIT ?

-- celery.handover._UNSENT, PostgreSQL
SELECT key, call FROM snappea_handover WHERE sent_at IS NULL ORDER BY rowid LIMIT %s

-- foreman.scheduler._MOVE_ON, SQLite
UPDATE snappea_schedule SET next_run = ?
WHERE name = ? AND next_run = ? AND NOT is_paused AND is_paused = 0

-- foreman.scheduler._MOVE_ON, PostgreSQL
UPDATE snappea_schedule SET next_run = %s
WHERE name = %s AND next_run = %s AND NOT is_paused AND is_paused = false

-- foreman.statistics._ADD_UP, SQLite
INSERT INTO snappea_total AS total (task_name, done, failed, retried, cancelled, expired, wait_sum, run_sum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (task_name)
DO UPDATE SET done = total.done + excluded.done, failed = total.failed + excluded.failed, retried = total.retried + excluded.retried, cancelled = total.cancelled + excluded.cancelled, expired = total.expired + excluded.expired, wait_sum = total.wait_sum + excluded.wait_sum, run_sum = total.run_sum + excluded.run_sum

-- foreman.statistics._ADD_UP, PostgreSQL
INSERT INTO snappea_total AS total (task_name, done, failed, retried, cancelled, expired, wait_sum, run_sum)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (task_name)
DO UPDATE SET done = total.done + excluded.done, failed = total.failed + excluded.failed, retried = total.retried + excluded.retried, cancelled = total.cancelled + excluded.cancelled, expired = total.expired + excluded.expired, wait_sum = total.wait_sum + excluded.wait_sum, run_sum = total.run_sum + excluded.run_sum

-- foreman.statistics._INSERT, SQLite
INSERT INTO snappea_stat (minute, task_name, done, failed, retried, cancelled, expired, wait_sum, wait_max, run_sum, run_max, run_times, wait_times, backlog, starts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- foreman.statistics._INSERT, PostgreSQL
INSERT INTO snappea_stat (minute, task_name, done, failed, retried, cancelled, expired, wait_sum, wait_max, run_sum, run_max, run_times, wait_times, backlog, starts)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- foreman.statistics._PURGE, SQLite
DELETE FROM snappea_stat WHERE id IN (
    SELECT id FROM snappea_stat WHERE minute < ? ORDER BY minute LIMIT ?)

-- foreman.statistics._PURGE, PostgreSQL
DELETE FROM snappea_stat WHERE id IN (
    SELECT id FROM snappea_stat WHERE minute < %s ORDER BY minute LIMIT %s)

-- management.beat._QUERY, both
SELECT p.name, p.task, p.args, p.kwargs, p.queue, p.enabled, i.every, i.period,
    c.minute, c.hour, c.day_of_month, c.month_of_year, c.day_of_week, c.timezone, s.event, o.clocked_time,
    p.one_off, p.total_run_count, p.start_time, p.expires, p.expire_seconds,
    p.priority, p.exchange, p.routing_key, p.headers
FROM django_celery_beat_periodictask p
LEFT JOIN django_celery_beat_intervalschedule i ON i.id = p.interval_id
LEFT JOIN django_celery_beat_crontabschedule c ON c.id = p.crontab_id
LEFT JOIN django_celery_beat_solarschedule s ON s.id = p.solar_id
LEFT JOIN django_celery_beat_clockedschedule o ON o.id = p.clocked_id
ORDER BY p.id

-- monitoring.inspect._ALL_COUNTS, SQLite
SELECT (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'scheduled' LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 UNION ALL
        SELECT id FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready'
        UNION ALL SELECT id FROM snappea_task
            WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0
        UNION ALL SELECT id FROM snappea_task
            WHERE gate = 1 AND status = 'ready' AND lane IS NULL LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE id IN (SELECT value FROM json_each(?)) AND status = 'running' LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'failed' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'interrupted' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'successful' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'cancelled' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM snappea_schedule),
    (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'failed' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') AND finished_at >= ? LIMIT 100001) AS counted)

-- monitoring.inspect._ALL_COUNTS, PostgreSQL
SELECT (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'scheduled' LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 UNION ALL
        SELECT id FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready'
        UNION ALL SELECT id FROM snappea_task
            WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0
        UNION ALL SELECT id FROM snappea_task
            WHERE gate = 1 AND status = 'ready' AND lane IS NULL LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE id = ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(%s::json))) AND status = 'running' LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'failed' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'interrupted' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'successful' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'cancelled' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM snappea_schedule),
    (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'failed' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') AND finished_at >= %s LIMIT 100001) AS counted)

-- monitoring.inspect._FAILURES, both
WITH RECURSIVE first(id) AS (
    SELECT (SELECT id FROM snappea_task WHERE status = 'failed' ORDER BY exception, place, task_name LIMIT 1)
    UNION ALL SELECT coalesce((SELECT id FROM snappea_task WHERE status = 'failed' AND exception = here.exception AND place = here.place AND task_name > here.task_name
        ORDER BY task_name LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'failed' AND exception = here.exception AND place > here.place
        ORDER BY place, task_name LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'failed' AND exception > here.exception
        ORDER BY exception, place, task_name LIMIT 1))
    FROM first JOIN snappea_task AS here ON here.id = first.id)
SELECT exception, place, task_name, (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE status = 'failed' AND exception = kind.exception AND place = kind.place
AND task_name = kind.task_name LIMIT 100001) AS counted) AS number
FROM first JOIN snappea_task AS kind ON kind.id = first.id ORDER BY number DESC

-- monitoring.inspect._FEW_COUNTS, SQLite
SELECT (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'failed' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM snappea_schedule),
    (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE id IN (SELECT value FROM json_each(?)) AND status = 'running' LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 UNION ALL
        SELECT id FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready'
        UNION ALL SELECT id FROM snappea_task
            WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0
        UNION ALL SELECT id FROM snappea_task
            WHERE gate = 1 AND status = 'ready' AND lane IS NULL UNION ALL SELECT id FROM snappea_task WHERE status = 'scheduled' UNION ALL SELECT id FROM snappea_task WHERE status = 'failed' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') UNION ALL SELECT id FROM snappea_task WHERE status = 'interrupted' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') UNION ALL SELECT id FROM snappea_task WHERE status = 'successful' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') UNION ALL SELECT id FROM snappea_task WHERE status = 'cancelled' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted)

-- monitoring.inspect._FEW_COUNTS, PostgreSQL
SELECT (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'failed' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted), (SELECT count(*) FROM snappea_schedule),
    (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE id = ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(%s::json))) AND status = 'running' LIMIT 100001) AS counted), (SELECT count(*) FROM (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 UNION ALL
        SELECT id FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready'
        UNION ALL SELECT id FROM snappea_task
            WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0
        UNION ALL SELECT id FROM snappea_task
            WHERE gate = 1 AND status = 'ready' AND lane IS NULL UNION ALL SELECT id FROM snappea_task WHERE status = 'scheduled' UNION ALL SELECT id FROM snappea_task WHERE status = 'failed' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') UNION ALL SELECT id FROM snappea_task WHERE status = 'interrupted' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') UNION ALL SELECT id FROM snappea_task WHERE status = 'successful' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') UNION ALL SELECT id FROM snappea_task WHERE status = 'cancelled' AND NOT (status IN ('ready', 'scheduled')) AND NOT (status = 'running') LIMIT 100001) AS counted)

-- monitoring.inspect._IN_FLIGHT, SQLite
SELECT id, claims, task_name, queue, +started_at, attempts,
    progress_done, progress_total, progress_note, +is_revoked, foreman_id, +is_async
FROM snappea_task WHERE id IN (SELECT value FROM json_each(?)) AND status = 'running' ORDER BY id

-- monitoring.inspect._IN_FLIGHT, PostgreSQL
SELECT id, claims, task_name, queue, started_at, attempts,
    progress_done, progress_total, progress_note, is_revoked, foreman_id, is_async
FROM snappea_task WHERE id = ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(%s::json))) AND status = 'running' ORDER BY id

-- monitoring.inspect._KINDS_OF_FAILURE, SQLite
WITH RECURSIVE first(id) AS (
    SELECT (SELECT id FROM snappea_task WHERE status = 'failed' ORDER BY exception, place, task_name LIMIT 1)
    UNION ALL SELECT coalesce((SELECT id FROM snappea_task WHERE status = 'failed' AND exception = here.exception AND place = here.place AND task_name > here.task_name
        ORDER BY task_name LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'failed' AND exception = here.exception AND place > here.place
        ORDER BY place, task_name LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'failed' AND exception > here.exception
        ORDER BY exception, place, task_name LIMIT 1))
    FROM first JOIN snappea_task AS here ON here.id = first.id)
SELECT exception, task_name FROM first JOIN snappea_task ON snappea_task.id = first.id LIMIT ?

-- monitoring.inspect._KINDS_OF_FAILURE, PostgreSQL
WITH RECURSIVE first(id) AS (
    SELECT (SELECT id FROM snappea_task WHERE status = 'failed' ORDER BY exception, place, task_name LIMIT 1)
    UNION ALL SELECT coalesce((SELECT id FROM snappea_task WHERE status = 'failed' AND exception = here.exception AND place = here.place AND task_name > here.task_name
        ORDER BY task_name LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'failed' AND exception = here.exception AND place > here.place
        ORDER BY place, task_name LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'failed' AND exception > here.exception
        ORDER BY exception, place, task_name LIMIT 1))
    FROM first JOIN snappea_task AS here ON here.id = first.id)
SELECT exception, task_name FROM first JOIN snappea_task ON snappea_task.id = first.id LIMIT %s

-- monitoring.inspect._NAMES, SQLite
SELECT task_name, count(*) FROM (SELECT task_name FROM snappea_task
    WHERE status = 'ready' AND gate = 0 ORDER BY is_async, queue, priority DESC LIMIT ?) AS few GROUP BY task_name

-- monitoring.inspect._NAMES, PostgreSQL
SELECT task_name, count(*) FROM (SELECT task_name FROM snappea_task
    WHERE status = 'ready' AND gate = 0 ORDER BY is_async, queue, priority DESC LIMIT %s) AS few GROUP BY task_name

-- monitoring.inspect._QUEUES, SQLite
WITH RECURSIVE first(id) AS (
    SELECT (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 ORDER BY is_async, queue, priority DESC LIMIT 1)
    UNION ALL SELECT coalesce((SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = here.is_async AND queue = here.queue AND priority < here.priority
        ORDER BY priority DESC LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = here.is_async AND queue > here.queue
        ORDER BY queue, priority DESC LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async > here.is_async
        ORDER BY is_async, queue, priority DESC LIMIT 1))
    FROM first JOIN snappea_task AS here ON here.id = first.id)
SELECT queue, (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = alike.is_async AND queue = alike.queue AND priority = alike.priority LIMIT ?) AS counted), 0,
    (SELECT min(since) FROM (SELECT coalesce(run_after, enqueued_at) AS since FROM snappea_task
        WHERE status = 'ready' AND gate = 0 AND is_async = alike.is_async AND queue = alike.queue AND priority = alike.priority ORDER BY coalesce(turn, id) LIMIT ?) AS eldest)
FROM first JOIN snappea_task AS alike ON alike.id = first.id
UNION ALL SELECT queue, 0, count(*), NULL FROM (SELECT queue FROM snappea_task
    WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0
    ORDER BY lane LIMIT ?) AS few GROUP BY queue
UNION ALL SELECT queue, 0, 0, +since FROM snappea_pause

-- monitoring.inspect._QUEUES, PostgreSQL
WITH RECURSIVE first(id) AS (
    SELECT (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 ORDER BY is_async, queue, priority DESC LIMIT 1)
    UNION ALL SELECT coalesce((SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = here.is_async AND queue = here.queue AND priority < here.priority
        ORDER BY priority DESC LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = here.is_async AND queue > here.queue
        ORDER BY queue, priority DESC LIMIT 1), (SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async > here.is_async
        ORDER BY is_async, queue, priority DESC LIMIT 1))
    FROM first JOIN snappea_task AS here ON here.id = first.id)
SELECT queue, (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = alike.is_async AND queue = alike.queue AND priority = alike.priority LIMIT %s) AS counted), 0,
    (SELECT min(since) FROM (SELECT coalesce(run_after, enqueued_at) AS since FROM snappea_task
        WHERE status = 'ready' AND gate = 0 AND is_async = alike.is_async AND queue = alike.queue AND priority = alike.priority ORDER BY coalesce(turn, id) LIMIT %s) AS eldest)
FROM first JOIN snappea_task AS alike ON alike.id = first.id
UNION ALL SELECT queue, 0, count(*), NULL FROM (SELECT queue FROM snappea_task
    WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0
    ORDER BY lane LIMIT %s) AS few GROUP BY queue
UNION ALL SELECT queue, 0, 0, since FROM snappea_pause

-- monitoring.inspect._READY, both
SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 UNION ALL
        SELECT id FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready'
        UNION ALL SELECT id FROM snappea_task
            WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0
        UNION ALL SELECT id FROM snappea_task
            WHERE gate = 1 AND status = 'ready' AND lane IS NULL

-- monitoring.inspect._RUNNING, SQLite
SELECT id, claims, +started_at FROM snappea_task
WHERE status = 'running'  LIMIT ?

-- monitoring.inspect._RUNNING, PostgreSQL
SELECT id, claims, started_at FROM snappea_task
WHERE status = 'running' AND foreman_id IS NOT NULL LIMIT %s

-- monitoring.inspect._SCHEDULES, both
SELECT count(*) FROM snappea_schedule

-- monitoring.inspect._SHUT, both
SELECT id FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'ready'
UNION ALL SELECT id FROM snappea_task
    WHERE lane IS NOT NULL AND status = 'ready' AND gate <> 0
UNION ALL SELECT id FROM snappea_task
    WHERE gate = 1 AND status = 'ready' AND lane IS NULL

-- monitoring.preflight._CALLBACKS, SQLite
SELECT id, CAST(created_at AS text), CASE WHEN success_id IS NULL THEN on_success END,
    CASE WHEN failure_id IS NULL THEN on_failure END, CASE WHEN complete_id IS NULL THEN on_complete END
FROM snappea_batch WHERE id > ? AND (finished_at IS NULL OR EXISTS (
    SELECT 1 FROM snappea_task WHERE batch_id = snappea_batch.id AND batch_id IS NOT NULL
        AND status IN ('failed', 'interrupted')))
ORDER BY id LIMIT ?

-- monitoring.preflight._CALLBACKS, PostgreSQL
SELECT id, CAST(created_at AS text), CASE WHEN success_id IS NULL THEN on_success END,
    CASE WHEN failure_id IS NULL THEN on_failure END, CASE WHEN complete_id IS NULL THEN on_complete END
FROM snappea_batch WHERE id > %s AND (finished_at IS NULL OR EXISTS (
    SELECT 1 FROM snappea_task WHERE batch_id = snappea_batch.id AND batch_id IS NOT NULL
        AND status IN ('failed', 'interrupted')))
ORDER BY id LIMIT %s

-- monitoring.preflight._CALLS, SQLite
SELECT id, CAST(enqueued_at AS text), task_name, queue, backend, status, args, kwargs FROM snappea_task
WHERE id > ? AND status IN ('ready', 'scheduled', 'running', 'failed', 'interrupted')
ORDER BY id LIMIT ?

-- monitoring.preflight._CALLS, PostgreSQL
SELECT id, CAST(enqueued_at AS text), task_name, queue, backend, status, args, kwargs FROM snappea_task
WHERE id > %s AND status IN ('ready', 'scheduled', 'running', 'failed', 'interrupted')
ORDER BY id LIMIT %s

-- monitoring.why._BEFORE, SQLite
SELECT (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE status = 'ready' AND gate = 0
        AND is_async = ? AND queue = ? AND priority > ? LIMIT ?) AS more_urgent)
    + (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE status = 'ready' AND gate = 0
        AND is_async = ? AND queue = ? AND priority = ? AND coalesce(turn, id) < ? LIMIT ?) AS older)

-- monitoring.why._BEFORE, PostgreSQL
SELECT (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE status = 'ready' AND gate = 0
        AND is_async = %s AND queue = %s AND priority > %s LIMIT %s) AS more_urgent)
    + (SELECT count(*) FROM (SELECT 1 FROM snappea_task WHERE status = 'ready' AND gate = 0
        AND is_async = %s AND queue = %s AND priority = %s AND coalesce(turn, id) < %s LIMIT %s) AS older)

-- monitoring.why._IN_GROUP, SQLite
SELECT -priority, coalesce(turn, id), id FROM snappea_task
WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = ? AND (CAST(? AS text) IS NULL OR queue IN (SELECT value FROM json_each(?))) AND NOT queue IN (SELECT snappea_pause.queue FROM snappea_pause)
ORDER BY priority DESC, coalesce(turn, id), id LIMIT ?

-- monitoring.why._IN_GROUP, PostgreSQL
SELECT -priority, coalesce(turn, id), id FROM snappea_task
WHERE lane = %s AND lane IS NOT NULL AND status = 'ready' AND gate = %s AND (CAST(%s AS text) IS NULL OR queue IN (SELECT value FROM json_array_elements_text(%s::json))) AND NOT queue IN (SELECT snappea_pause.queue FROM snappea_pause)
ORDER BY priority DESC, coalesce(turn, id), id LIMIT %s

-- monitoring.why._LIMITS, SQLite
SELECT task_name, lane_limit, lane_interval, lane_burst FROM snappea_task WHERE id = ?

-- monitoring.why._LIMITS, PostgreSQL
SELECT task_name, lane_limit, lane_interval, lane_burst FROM snappea_task WHERE id = %s

-- monitoring.why._RATE, SQLite
SELECT sum(done + failed + retried + cancelled), 60 * count(DISTINCT minute) FROM snappea_stat
WHERE task_name = '' AND minute >= ? AND done + failed + retried + cancelled > 0

-- monitoring.why._RATE, PostgreSQL
SELECT sum(done + failed + retried + cancelled), 60 * count(DISTINCT minute) FROM snappea_stat
WHERE task_name = '' AND minute >= %s AND done + failed + retried + cancelled > 0

-- monitoring.why._TO_YIELD, SQLite
SELECT count(*) FROM (SELECT id FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = 0 AND priority < ? AND (CAST(? AS text) IS NULL OR queue IN (SELECT value FROM json_each(?))) ORDER BY priority DESC, coalesce(turn, id), id) AS found

-- monitoring.why._TO_YIELD, PostgreSQL
SELECT count(*) FROM (SELECT id FROM snappea_task WHERE lane = %s AND lane IS NOT NULL AND status = 'ready' AND gate = 0 AND priority < %s AND (CAST(%s AS text) IS NULL OR queue IN (SELECT value FROM json_array_elements_text(%s::json))) ORDER BY priority DESC, coalesce(turn, id), id) AS found

-- monitoring.why._WITH_PLACE, SQLite
SELECT id FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND status IN ('ready', 'running') AND gate = 0 LIMIT ?

-- monitoring.why._WITH_PLACE, PostgreSQL
SELECT id FROM snappea_task WHERE lane = %s AND lane IS NOT NULL AND status IN ('ready', 'running') AND gate = 0 LIMIT %s

-- postgres.foremen.HOLD_SCHEDULES, both
SELECT pg_advisory_xact_lock(1936613744, 2)

-- postgres.foremen._ADDRESS, SQLite
UPDATE snappea_task SET foreman_id = ?, gate = 3 WHERE id = ?

-- postgres.foremen._ADDRESS, PostgreSQL
UPDATE snappea_task SET foreman_id = %s, gate = 3 WHERE id = %s

-- postgres.foremen._ADOPT, SQLite
UPDATE snappea_task SET foreman_id = ? WHERE foreman_id = ? AND status = 'running'

-- postgres.foremen._ADOPT, PostgreSQL
UPDATE snappea_task SET foreman_id = %s WHERE foreman_id = %s AND status = 'running'

-- postgres.foremen._BE_KNOWN, SQLite
SELECT set_config('snappea.foreman', ?, false)

-- postgres.foremen._BE_KNOWN, PostgreSQL
SELECT set_config('snappea.foreman', %s, false)

-- postgres.foremen._DISMISS, SQLite
DELETE FROM snappea_task WHERE foreman_id = ? AND status IN ('ready', 'scheduled')

-- postgres.foremen._DISMISS, PostgreSQL
DELETE FROM snappea_task WHERE foreman_id = %s AND status IN ('ready', 'scheduled')

-- postgres.foremen._LEAVE, SQLite
DELETE FROM snappea_presence WHERE id = ?

-- postgres.foremen._LEAVE, PostgreSQL
DELETE FROM snappea_presence WHERE id = %s

-- postgres.foremen._ORPHANS, SQLite
SELECT id, claims, started_at, task_name FROM snappea_task
WHERE foreman_id IS NOT NULL AND status = 'running'
    AND started_at <= clock_timestamp() - make_interval(secs => ?)
    AND NOT EXISTS (SELECT 1 FROM snappea_presence WHERE snappea_presence.id = foreman_id)

-- postgres.foremen._ORPHANS, PostgreSQL
SELECT id, claims, started_at, task_name FROM snappea_task
WHERE foreman_id IS NOT NULL AND status = 'running'
    AND started_at <= clock_timestamp() - make_interval(secs => %s)
    AND NOT EXISTS (SELECT 1 FROM snappea_presence WHERE snappea_presence.id = foreman_id)

-- postgres.foremen._PRESENT, SQLite
SELECT id, pid, host, since, workers, stuck, queues FROM snappea_presence
WHERE NOT (greatest(seen_at, pg_postmaster_start_time()) <= clock_timestamp() - make_interval(secs => ?)) ORDER BY id

-- postgres.foremen._PRESENT, PostgreSQL
SELECT id, pid, host, since, workers, stuck, queues FROM snappea_presence
WHERE NOT (greatest(seen_at, pg_postmaster_start_time()) <= clock_timestamp() - make_interval(secs => %s)) ORDER BY id

-- postgres.foremen._RECHECK, SQLite
UPDATE snappea_task SET gate = 1 WHERE id IN (
    SELECT DISTINCT ON (lane) id FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready' AND gate = 2
    ORDER BY lane, priority DESC, coalesce(turn, id))

-- postgres.foremen._RECHECK, PostgreSQL
UPDATE snappea_task SET gate = 1 WHERE id = ANY(ARRAY(
    SELECT DISTINCT ON (lane) id FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready' AND gate = 2
    ORDER BY lane, priority DESC, coalesce(turn, id)))

-- postgres.foremen._REGISTER, SQLite
INSERT INTO snappea_presence (host, pid, since, seen_at, workers, stuck)
VALUES (?, ?, clock_timestamp(), clock_timestamp(), ?, '[]') RETURNING id

-- postgres.foremen._REGISTER, PostgreSQL
INSERT INTO snappea_presence (host, pid, since, seen_at, workers, stuck)
VALUES (%s, %s, clock_timestamp(), clock_timestamp(), %s, '[]') RETURNING id

-- postgres.foremen._RENEW, SQLite
UPDATE snappea_presence SET seen_at = clock_timestamp(), workers = ?, stuck = ?, queues = ? WHERE id = ?
RETURNING extract(epoch FROM seen_at)::float, (SELECT count(*) FROM snappea_presence) <= 3
    OR pg_try_advisory_lock('snappea_presence'::regclass::oid::int, hashtext(queues))

-- postgres.foremen._RENEW, PostgreSQL
UPDATE snappea_presence SET seen_at = clock_timestamp(), workers = %s, stuck = %s, queues = %s WHERE id = %s
RETURNING extract(epoch FROM seen_at)::float, (SELECT count(*) FROM snappea_presence) <= 3
    OR pg_try_advisory_lock('snappea_presence'::regclass::oid::int, hashtext(queues))

-- postgres.foremen._RUNNING_IN, both
SELECT queue, count(*) FROM snappea_task WHERE foreman_id IS NOT NULL AND status = 'running'
GROUP BY queue

-- postgres.foremen._RUNNING_OF, SQLite
SELECT id, claims, started_at, task_name FROM snappea_task
WHERE foreman_id = ? AND status = 'running'

-- postgres.foremen._RUNNING_OF, PostgreSQL
SELECT id, claims, started_at, task_name FROM snappea_task
WHERE foreman_id = %s AND status = 'running'

-- postgres.foremen._SILENT, SQLite
SELECT id, pid, host FROM snappea_presence WHERE greatest(seen_at, pg_postmaster_start_time()) <= clock_timestamp() - make_interval(secs => ?) ORDER BY id FOR UPDATE SKIP LOCKED

-- postgres.foremen._SILENT, PostgreSQL
SELECT id, pid, host FROM snappea_presence WHERE greatest(seen_at, pg_postmaster_start_time()) <= clock_timestamp() - make_interval(secs => %s) ORDER BY id FOR UPDATE SKIP LOCKED

-- postgres.foremen._UNCONFIRMED, SQLite
SELECT count(*) FROM snappea_presence, snappea_pause
WHERE queue = ? AND replace(heard_by, ' ' || snappea_presence.id || ' ', '') = heard_by
    AND NOT (greatest(seen_at, pg_postmaster_start_time()) <= clock_timestamp() - make_interval(secs => ?))

-- postgres.foremen._UNCONFIRMED, PostgreSQL
SELECT count(*) FROM snappea_presence, snappea_pause
WHERE queue = %s AND replace(heard_by, ' ' || snappea_presence.id || ' ', '') = heard_by
    AND NOT (greatest(seen_at, pg_postmaster_start_time()) <= clock_timestamp() - make_interval(secs => %s))

-- postgres.foremen._USE_INDEXES, SQLite
SELECT set_config(name, 'off', ?)
FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'jit']) AS name

-- postgres.foremen._USE_INDEXES, PostgreSQL
SELECT set_config(name, 'off', %s)
FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'jit']) AS name

-- postgres.front._CLAIM_FROM, SQLite
UPDATE snappea_task SET status = 'running',
    started_at = ?, attempts = attempts + 1, claims = claims + 1 WHERE id IN (
    SELECT id FROM (
        SELECT id FROM (SELECT id FROM snappea_task
            WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue = ? AND priority > ?
            ORDER BY priority DESC, coalesce(turn, id), id ) AS urgent
        UNION ALL
        SELECT id FROM (SELECT id FROM snappea_task
            WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue = ? AND priority = ? AND coalesce(turn, id) >= ?
            ORDER BY priority DESC, coalesce(turn, id), id ) AS others) AS line
    WHERE NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = ?) LIMIT ?)
RETURNING -priority, id, claims, task_name, args, kwargs, queue, attempts,
    +enqueued_at, +is_async, +started_at, CASE WHEN coalesce(result_ttl, lane, parent_id, batch_id, expires_at, run_after,
        nullif(interruptions, 0), nullif(is_sensitive, 0), -1) <> -1
    THEN json_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
        'lane', lane, 'lane_interval', lane_interval,
        'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
        'passes_result', CASE WHEN EXISTS (SELECT 1 FROM snappea_batch
            WHERE snappea_batch.id = snappea_task.batch_id
                AND substr(on_success, 1, 15) = '{"takes_result"')
        THEN NOT EXISTS (SELECT 1 FROM snappea_task AS other
            WHERE other.batch_id = snappea_task.batch_id AND other.batch_id IS NOT NULL
                AND other.id < snappea_task.id)
        ELSE false END, 'expires_at', expires_at,
        'run_after', run_after, 'is_sensitive', is_sensitive, 'origin',
        json(CASE WHEN coalesce(backend, '') <> '' THEN json_object('backend', backend,
            'overrides', overrides, 'started_at', started_at, 'first_started_at', first_started_at,
            'errors', errors) END)) END

-- postgres.front._CLAIM_FROM, PostgreSQL
UPDATE snappea_task SET status = 'running', foreman_id = nullif(current_setting('snappea.foreman', true), '')::bigint,
    started_at = %s, attempts = attempts + 1, claims = claims + 1 WHERE id = ANY(ARRAY(
    SELECT id FROM (
        SELECT id FROM (SELECT id FROM snappea_task
            WHERE status = 'ready' AND gate = 0 AND is_async = %s AND queue = %s AND priority > %s
            ORDER BY priority DESC, coalesce(turn, id), id FOR UPDATE SKIP LOCKED) AS urgent
        UNION ALL
        SELECT id FROM (SELECT id FROM snappea_task
            WHERE status = 'ready' AND gate = 0 AND is_async = %s AND queue = %s AND priority = %s AND coalesce(turn, id) >= %s
            ORDER BY priority DESC, coalesce(turn, id), id FOR UPDATE SKIP LOCKED) AS others) AS line
    WHERE NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = %s) LIMIT %s))
RETURNING -priority, id, claims, task_name, args, kwargs, queue, attempts,
    enqueued_at, is_async, started_at, CASE WHEN num_nonnulls(result_ttl, lane, parent_id, batch_id, expires_at,
        run_after, nullif(interruptions, 0), nullif(is_sensitive, false), backend) > 0
    THEN json_build_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
        'lane', lane, 'lane_interval', lane_interval,
        'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
        'passes_result', CASE WHEN EXISTS (SELECT 1 FROM snappea_batch
            WHERE snappea_batch.id = snappea_task.batch_id
                AND substr(on_success, 1, 15) = '{"takes_result"')
        THEN NOT EXISTS (SELECT 1 FROM snappea_task AS other
            WHERE other.batch_id = snappea_task.batch_id AND other.batch_id IS NOT NULL
                AND other.id < snappea_task.id)
        ELSE false END,
        'expires_at', to_char(expires_at, 'YYYY-MM-DD HH24:MI:SS.US'), 'run_after', to_char(run_after, 'YYYY-MM-DD HH24:MI:SS.US'),
        'is_sensitive', is_sensitive, 'origin',
        CASE WHEN backend <> '' THEN json_build_object('backend', backend,
            'overrides', overrides, 'started_at', to_char(started_at, 'YYYY-MM-DD HH24:MI:SS.US'),
            'first_started_at', to_char(first_started_at, 'YYYY-MM-DD HH24:MI:SS.US'), 'errors', errors) END)::text END

-- postgres.front._FRONT, SQLite
SELECT priority, coalesce(turn, id) FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue = ?
ORDER BY priority DESC, coalesce(turn, id), id LIMIT 1

-- postgres.front._FRONT, PostgreSQL
SELECT priority, coalesce(turn, id) FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = %s AND queue = %s
ORDER BY priority DESC, coalesce(turn, id), id LIMIT 1

-- postgres.side._LOCK, both
SELECT pg_try_advisory_lock(1936613744, 10)

-- postgres.vacuum._ALONE, both
SELECT pg_try_advisory_lock(1936613744, 3)

-- postgres.vacuum._DEAD, both
SELECT relid::regclass::text, n_dead_tup FROM pg_stat_user_tables
WHERE relid::regclass::text LIKE 'snappea\_%' AND n_dead_tup >= 20000 + 0.05 * n_live_tup

-- postgres.vacuum._HOLDER, both
SELECT name || coalesce(', open for ' || extract(epoch FROM now() - since)::int || ' s', '')
FROM (SELECT format('pid %s (%s)', pid, coalesce(nullif(application_name, ''), backend_type)),
            coalesce(backend_xmin, backend_xid), xact_start
        FROM pg_stat_activity WHERE backend_type <> 'autovacuum worker' AND pid <> pg_backend_pid()
            AND coalesce(datname, current_database()) = current_database()
    UNION ALL SELECT 'prepared transaction ' || gid, transaction, prepared
        FROM pg_prepared_xacts WHERE database = current_database()
    UNION ALL SELECT 'replication slot ' || slot_name, xmin, NULL FROM pg_replication_slots
    ) AS found (name, oldest, since)
WHERE oldest IS NOT NULL ORDER BY age(oldest) DESC LIMIT 1

-- postgres.vacuum._LEFT, both
SELECT relid::regclass::text, n_dead_tup FROM pg_stat_user_tables
WHERE relid::regclass::text LIKE 'snappea\_%' AND n_dead_tup >= 20000 + 0.05 * n_live_tup
AND last_vacuum >= (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())

-- queue.alerts._END, SQLite
DELETE FROM snappea_uniqueuntil WHERE key = ?

-- queue.alerts._END, PostgreSQL
DELETE FROM snappea_uniqueuntil WHERE key = %s

-- queue.alerts._NOTE, SQLite
INSERT INTO snappea_uniqueuntil (key, task_id, until) VALUES (?, 0, ?) ON CONFLICT (key) DO NOTHING

-- queue.alerts._NOTE, PostgreSQL
INSERT INTO snappea_uniqueuntil (key, task_id, until) VALUES (%s, 0, %s) ON CONFLICT (key) DO NOTHING

-- queue.alerts._NOTED, SQLite
SELECT key, task_id FROM snappea_uniqueuntil WHERE key LIKE ?

-- queue.alerts._NOTED, PostgreSQL
SELECT key, task_id FROM snappea_uniqueuntil WHERE key LIKE %s

-- queue.alerts._TAKE, SQLite
UPDATE snappea_uniqueuntil SET until = ? WHERE key = ? AND until <= ?

-- queue.alerts._TAKE, PostgreSQL
UPDATE snappea_uniqueuntil SET until = %s WHERE key = %s AND until <= %s

-- queue.alerts._TOLD, SQLite
UPDATE snappea_uniqueuntil SET until = ?, task_id = 1 WHERE key = ?

-- queue.alerts._TOLD, PostgreSQL
UPDATE snappea_uniqueuntil SET until = %s, task_id = 1 WHERE key = %s

-- queue.batches.COUNTS, SQLite
WITH RECURSIVE family (id) AS (
    SELECT CAST(? AS bigint)
    UNION SELECT child.id FROM snappea_batch AS child, family
        WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL) SELECT sum(total), sum(succeeded), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'scheduled')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'ready')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'running')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'failed')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'interrupted')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'successful')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'cancelled'))
FROM snappea_batch AS one JOIN family USING (id)

-- queue.batches.COUNTS, PostgreSQL
WITH RECURSIVE family (id) AS (
    SELECT CAST(%s AS bigint)
    UNION SELECT child.id FROM snappea_batch AS child, family
        WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL) SELECT sum(total), sum(succeeded), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'scheduled')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'ready')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'running')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'failed')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'interrupted')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'successful')), sum((SELECT count(*) FROM snappea_task WHERE batch_id = one.id AND batch_id IS NOT NULL AND status = 'cancelled'))
FROM snappea_batch AS one JOIN family USING (id)

-- queue.batches.DROP_SUCCESS, SQLite
WITH RECURSIVE family (id) AS (
    SELECT CAST(? AS bigint)
    UNION SELECT child.id FROM snappea_batch AS child, family
        WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL) UPDATE snappea_batch SET on_success = NULL WHERE id IN (SELECT id FROM family)

-- queue.batches.DROP_SUCCESS, PostgreSQL
WITH RECURSIVE family (id) AS (
    SELECT CAST(%s AS bigint)
    UNION SELECT child.id FROM snappea_batch AS child, family
        WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL) UPDATE snappea_batch SET on_success = NULL WHERE id IN (SELECT id FROM family)

-- queue.batches.ENDED, SQLite
SELECT id FROM snappea_batch WHERE finished_at IS NULL AND NOT (EXISTS (SELECT 1 FROM snappea_task WHERE batch_id = snappea_batch.id
        AND batch_id IS NOT NULL AND status IN ('ready', 'scheduled', 'running'))
    OR EXISTS (SELECT 1 FROM snappea_batch AS child WHERE child.parent_id = snappea_batch.id
        AND child.parent_id IS NOT NULL AND child.finished_at IS NULL)) LIMIT ?

-- queue.batches.ENDED, PostgreSQL
SELECT id FROM snappea_batch WHERE finished_at IS NULL AND NOT (EXISTS (SELECT 1 FROM snappea_task WHERE batch_id = snappea_batch.id
        AND batch_id IS NOT NULL AND status IN ('ready', 'scheduled', 'running'))
    OR EXISTS (SELECT 1 FROM snappea_batch AS child WHERE child.parent_id = snappea_batch.id
        AND child.parent_id IS NOT NULL AND child.finished_at IS NULL)) LIMIT %s

-- queue.batches.FAMILY_OF, SQLite
WITH RECURSIVE family (id) AS (
        SELECT CAST(? AS bigint)
        UNION SELECT child.id FROM snappea_batch AS child, family
            WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL) SELECT id FROM family

-- queue.batches.FAMILY_OF, PostgreSQL
WITH RECURSIVE family (id) AS (
        SELECT CAST(%s AS bigint)
        UNION SELECT child.id FROM snappea_batch AS child, family
            WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL) SELECT id FROM family

-- queue.batches.OLD, SQLite
SELECT 1 FROM snappea_batch WHERE finished_at <= ? LIMIT 1

-- queue.batches.OLD, PostgreSQL
SELECT 1 FROM snappea_batch WHERE finished_at <= %s LIMIT 1

-- queue.batches.PURGE, SQLite
DELETE FROM snappea_batch WHERE id IN (
    SELECT id FROM snappea_batch WHERE finished_at <= ?
        AND (SELECT id FROM snappea_task
            WHERE batch_id = snappea_batch.id AND batch_id IS NOT NULL LIMIT 1) IS NULL
        AND (SELECT id FROM snappea_batch AS outer_batch
            WHERE outer_batch.id = snappea_batch.parent_id) IS NULL
    ORDER BY finished_at LIMIT ? )

-- queue.batches.PURGE, PostgreSQL
DELETE FROM snappea_batch WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_batch WHERE finished_at <= %s
        AND (SELECT id FROM snappea_task
            WHERE batch_id = snappea_batch.id AND batch_id IS NOT NULL LIMIT 1) IS NULL
        AND (SELECT id FROM snappea_batch AS outer_batch
            WHERE outer_batch.id = snappea_batch.parent_id) IS NULL
    ORDER BY finished_at LIMIT %s FOR UPDATE SKIP LOCKED))

-- queue.batches.REOPEN, SQLite
UPDATE snappea_batch SET finished_at = NULL WHERE id = ? RETURNING parent_id

-- queue.batches.REOPEN, PostgreSQL
UPDATE snappea_batch SET finished_at = NULL WHERE id = %s RETURNING parent_id

-- queue.callbacks.ADD, SQLite
UPDATE snappea_batch SET total = total + ? WHERE id = ?

-- queue.callbacks.ADD, PostgreSQL
UPDATE snappea_batch SET total = total + %s WHERE id = %s

-- queue.callbacks.COUNT, SQLite
UPDATE snappea_batch SET succeeded = succeeded + ? WHERE id = ? RETURNING parent_id

-- queue.callbacks.COUNT, PostgreSQL
UPDATE snappea_batch SET succeeded = succeeded + %s WHERE id = %s RETURNING parent_id

-- queue.callbacks.CREATE, SQLite
INSERT INTO snappea_batch (
    description, parent_id, on_success, on_failure, on_complete, created_at, total, succeeded)
VALUES (?, ?, ?, ?, ?, ?, 0, 0)

-- queue.callbacks.CREATE, PostgreSQL
INSERT INTO snappea_batch (
    description, parent_id, on_success, on_failure, on_complete, created_at, total, succeeded)
VALUES (%s, %s, %s, %s, %s, %s, 0, 0) RETURNING id

-- queue.callbacks.DROP, SQLite
DELETE FROM snappea_batch WHERE id = ?

-- queue.callbacks.DROP, PostgreSQL
DELETE FROM snappea_batch WHERE id = %s

-- queue.callbacks.FAMILY, both
WITH RECURSIVE family (id) AS (
        SELECT {}
        UNION SELECT child.id FROM snappea_batch AS child, family
            WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL)

-- queue.callbacks.FINISH, SQLite
UPDATE snappea_batch SET finished_at = ? WHERE id = ?

-- queue.callbacks.FINISH, PostgreSQL
UPDATE snappea_batch SET finished_at = %s WHERE id = %s

-- queue.callbacks.NOTE_COMPLETE, SQLite
UPDATE snappea_batch SET complete_id = ? WHERE id = ?

-- queue.callbacks.NOTE_COMPLETE, PostgreSQL
UPDATE snappea_batch SET complete_id = %s WHERE id = %s

-- queue.callbacks.NOTE_FAILURE, SQLite
UPDATE snappea_batch SET failure_id = ? WHERE id = ?

-- queue.callbacks.NOTE_FAILURE, PostgreSQL
UPDATE snappea_batch SET failure_id = %s WHERE id = %s

-- queue.callbacks.NOTE_SUCCESS, SQLite
UPDATE snappea_batch SET success_id = ? WHERE id = ?

-- queue.callbacks.NOTE_SUCCESS, PostgreSQL
UPDATE snappea_batch SET success_id = %s WHERE id = %s

-- queue.callbacks.ON_SUCCESS, SQLite
SELECT on_success FROM snappea_batch WHERE id = ?

-- queue.callbacks.ON_SUCCESS, PostgreSQL
SELECT on_success FROM snappea_batch WHERE id = %s

-- queue.callbacks.SET_ON_SUCCESS, SQLite
UPDATE snappea_batch SET on_success = ? WHERE id = ?

-- queue.callbacks.SET_ON_SUCCESS, PostgreSQL
UPDATE snappea_batch SET on_success = %s WHERE id = %s

-- queue.callbacks.STATE, SQLite
WITH RECURSIVE family (id) AS (
    SELECT CAST(? AS bigint)
    UNION SELECT child.id FROM snappea_batch AS child, family
        WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL)
SELECT (EXISTS (SELECT 1 FROM snappea_task WHERE batch_id = snappea_batch.id
        AND batch_id IS NOT NULL AND status IN ('ready', 'scheduled', 'running'))
    OR EXISTS (SELECT 1 FROM snappea_batch AS child WHERE child.parent_id = snappea_batch.id
        AND child.parent_id IS NOT NULL AND child.finished_at IS NULL)),
    (SELECT sum(total - succeeded) FROM snappea_batch WHERE id IN (SELECT id FROM family)),
    EXISTS (SELECT 1 FROM snappea_task WHERE batch_id IN (SELECT id FROM family)
        AND batch_id IS NOT NULL AND status IN ('failed', 'interrupted', 'cancelled')),
    +finished_at, parent_id, +created_at,
    CASE WHEN success_id IS NULL THEN on_success END, CASE WHEN failure_id IS NULL THEN on_failure END,
    CASE WHEN complete_id IS NULL THEN on_complete END
FROM snappea_batch WHERE id = ?

-- queue.callbacks.STATE, PostgreSQL
WITH RECURSIVE family (id) AS (
    SELECT CAST(%s AS bigint)
    UNION SELECT child.id FROM snappea_batch AS child, family
        WHERE child.parent_id = family.id AND child.parent_id IS NOT NULL)
SELECT (EXISTS (SELECT 1 FROM snappea_task WHERE batch_id = snappea_batch.id
        AND batch_id IS NOT NULL AND status IN ('ready', 'scheduled', 'running'))
    OR EXISTS (SELECT 1 FROM snappea_batch AS child WHERE child.parent_id = snappea_batch.id
        AND child.parent_id IS NOT NULL AND child.finished_at IS NULL)),
    (SELECT sum(total - succeeded) FROM snappea_batch WHERE id IN (SELECT id FROM family)),
    EXISTS (SELECT 1 FROM snappea_task WHERE batch_id IN (SELECT id FROM family)
        AND batch_id IS NOT NULL AND status IN ('failed', 'interrupted', 'cancelled')),
    finished_at, parent_id, created_at,
    CASE WHEN success_id IS NULL THEN on_success END, CASE WHEN failure_id IS NULL THEN on_failure END,
    CASE WHEN complete_id IS NULL THEN on_complete END
FROM snappea_batch WHERE id = %s

-- queue.foremen._MARKS, both
SELECT key, task_name FROM snappea_handover WHERE key IN ('moved', 'moving')

-- queue.move._KEYS, both
SELECT call FROM snappea_handover WHERE key = 'moving' AND call <> ''

-- queue.move._MARK, SQLite
INSERT INTO snappea_handover (key, task_name, call, taken_by) VALUES (?, ?, ?, '')
ON CONFLICT (key) DO UPDATE SET task_name = excluded.task_name, call = excluded.call

-- queue.move._MARK, PostgreSQL
INSERT INTO snappea_handover (key, task_name, call, taken_by) VALUES (%s, %s, %s, '')
ON CONFLICT (key) DO UPDATE SET task_name = excluded.task_name, call = excluded.call

-- queue.move._TAKEN, SQLite
SELECT unique_key FROM snappea_task WHERE unique_key IN (SELECT value FROM json_each(?)) AND status IN ('ready', 'scheduled')

-- queue.move._TAKEN, PostgreSQL
SELECT unique_key FROM snappea_task WHERE unique_key IN (SELECT value FROM json_array_elements_text(%s::json)) AND status IN ('ready', 'scheduled')

-- queue.move._UNIQUE, SQLite
SELECT id, unique_key FROM snappea_task
WHERE id IN (SELECT value FROM json_each(?)) AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')

-- queue.move._UNIQUE, PostgreSQL
SELECT id, unique_key FROM snappea_task
WHERE id = ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(%s::json))) AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')

-- queue.move._UNMARK, SQLite
DELETE FROM snappea_handover WHERE key = ? AND task_name = ?

-- queue.move._UNMARK, PostgreSQL
DELETE FROM snappea_handover WHERE key = %s AND task_name = %s

-- queue.statements.ADMIT, SQLite
UPDATE snappea_task SET gate = 0 WHERE id IN (
    SELECT id FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = 2 AND (CAST(? AS text) IS NULL OR queue IN (SELECT value FROM json_each(?))) AND NOT queue IN (SELECT snappea_pause.queue FROM snappea_pause)
    ORDER BY priority DESC, coalesce(turn, id), id LIMIT ? )

-- queue.statements.ADMIT, PostgreSQL
UPDATE snappea_task SET gate = 0 WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task WHERE lane = %s AND lane IS NOT NULL AND status = 'ready' AND gate = 2 AND (CAST(%s AS text) IS NULL OR queue IN (SELECT value FROM json_array_elements_text(%s::json))) AND NOT queue IN (SELECT snappea_pause.queue FROM snappea_pause)
    ORDER BY priority DESC, coalesce(turn, id), id LIMIT %s FOR UPDATE SKIP LOCKED))

-- queue.statements.BLOCKED_GROUPS, both
SELECT DISTINCT lane FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready' AND gate = 2

-- queue.statements.BLOCK_NEW, SQLite
UPDATE snappea_task SET gate = 2 WHERE id IN (
    SELECT id FROM snappea_task INDEXED BY snappea_new WHERE gate = 1 AND status = 'ready' AND coalesce(fair_key, '') >= ?
    ORDER BY coalesce(fair_key, ''), id LIMIT ? )
RETURNING id, lane, fair_key, turn, +is_async, queue, priority, lane_discards AND claims = 0

-- queue.statements.BLOCK_NEW, PostgreSQL
UPDATE snappea_task SET gate = 2 WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task  WHERE gate = 1 AND status = 'ready' AND coalesce(fair_key, '') >= %s
    ORDER BY coalesce(fair_key, ''), id LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id, lane, fair_key, turn, is_async, queue, priority, lane_discards AND claims = 0

-- queue.statements.CANCEL, SQLite
DELETE FROM snappea_task WHERE id = ? AND status IN ('ready', 'scheduled')

-- queue.statements.CANCEL, PostgreSQL
DELETE FROM snappea_task WHERE id = %s AND status IN ('ready', 'scheduled')

-- queue.statements.CLAIM, SQLite
UPDATE snappea_task SET status = 'running',
    started_at = ?, attempts = attempts + 1, claims = claims + 1 WHERE id IN (
    SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue = ?
        AND NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = ?)
    ORDER BY priority DESC, coalesce(turn, id), id LIMIT ? )
RETURNING -priority, id, claims, task_name, args, kwargs, queue, attempts,
    +enqueued_at, +is_async, +started_at, CASE WHEN coalesce(result_ttl, lane, parent_id, batch_id, expires_at, run_after,
        nullif(interruptions, 0), nullif(is_sensitive, 0), -1) <> -1
    THEN json_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
        'lane', lane, 'lane_interval', lane_interval,
        'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
        'passes_result', CASE WHEN EXISTS (SELECT 1 FROM snappea_batch
            WHERE snappea_batch.id = snappea_task.batch_id
                AND substr(on_success, 1, 15) = '{"takes_result"')
        THEN NOT EXISTS (SELECT 1 FROM snappea_task AS other
            WHERE other.batch_id = snappea_task.batch_id AND other.batch_id IS NOT NULL
                AND other.id < snappea_task.id)
        ELSE false END, 'expires_at', expires_at,
        'run_after', run_after, 'is_sensitive', is_sensitive, 'origin',
        json(CASE WHEN coalesce(backend, '') <> '' THEN json_object('backend', backend,
            'overrides', overrides, 'started_at', started_at, 'first_started_at', first_started_at,
            'errors', errors) END)) END

-- queue.statements.CLAIM, PostgreSQL
UPDATE snappea_task SET status = 'running', foreman_id = nullif(current_setting('snappea.foreman', true), '')::bigint,
    started_at = %s, attempts = attempts + 1, claims = claims + 1 WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = %s AND queue = %s
        AND NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = %s)
    ORDER BY priority DESC, coalesce(turn, id), id LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING -priority, id, claims, task_name, args, kwargs, queue, attempts,
    enqueued_at, is_async, started_at, CASE WHEN num_nonnulls(result_ttl, lane, parent_id, batch_id, expires_at,
        run_after, nullif(interruptions, 0), nullif(is_sensitive, false), backend) > 0
    THEN json_build_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
        'lane', lane, 'lane_interval', lane_interval,
        'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
        'passes_result', CASE WHEN EXISTS (SELECT 1 FROM snappea_batch
            WHERE snappea_batch.id = snappea_task.batch_id
                AND substr(on_success, 1, 15) = '{"takes_result"')
        THEN NOT EXISTS (SELECT 1 FROM snappea_task AS other
            WHERE other.batch_id = snappea_task.batch_id AND other.batch_id IS NOT NULL
                AND other.id < snappea_task.id)
        ELSE false END,
        'expires_at', to_char(expires_at, 'YYYY-MM-DD HH24:MI:SS.US'), 'run_after', to_char(run_after, 'YYYY-MM-DD HH24:MI:SS.US'),
        'is_sensitive', is_sensitive, 'origin',
        CASE WHEN backend <> '' THEN json_build_object('backend', backend,
            'overrides', overrides, 'started_at', to_char(started_at, 'YYYY-MM-DD HH24:MI:SS.US'),
            'first_started_at', to_char(first_started_at, 'YYYY-MM-DD HH24:MI:SS.US'), 'errors', errors) END)::text END

-- queue.statements.CLAIM_ADDRESSED, SQLite
UPDATE snappea_task SET status = 'running',
    started_at = ?, attempts = attempts + 1, claims = claims + 1 WHERE id IN (
    SELECT id FROM snappea_task
    WHERE foreman_id IS NOT NULL AND foreman_id = 0 AND status = 'ready' AND is_async = ?
        AND NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = snappea_task.queue)
    ORDER BY priority DESC, coalesce(turn, id), id LIMIT ? )
RETURNING -priority, id, claims, task_name, args, kwargs, queue, attempts,
    +enqueued_at, +is_async, +started_at, CASE WHEN coalesce(result_ttl, lane, parent_id, batch_id, expires_at, run_after,
        nullif(interruptions, 0), nullif(is_sensitive, 0), -1) <> -1
    THEN json_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
        'lane', lane, 'lane_interval', lane_interval,
        'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
        'passes_result', CASE WHEN EXISTS (SELECT 1 FROM snappea_batch
            WHERE snappea_batch.id = snappea_task.batch_id
                AND substr(on_success, 1, 15) = '{"takes_result"')
        THEN NOT EXISTS (SELECT 1 FROM snappea_task AS other
            WHERE other.batch_id = snappea_task.batch_id AND other.batch_id IS NOT NULL
                AND other.id < snappea_task.id)
        ELSE false END, 'expires_at', expires_at,
        'run_after', run_after, 'is_sensitive', is_sensitive, 'origin',
        json(CASE WHEN coalesce(backend, '') <> '' THEN json_object('backend', backend,
            'overrides', overrides, 'started_at', started_at, 'first_started_at', first_started_at,
            'errors', errors) END)) END

-- queue.statements.CLAIM_ADDRESSED, PostgreSQL
UPDATE snappea_task SET status = 'running', foreman_id = nullif(current_setting('snappea.foreman', true), '')::bigint,
    started_at = %s, attempts = attempts + 1, claims = claims + 1 WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task
    WHERE foreman_id IS NOT NULL AND foreman_id = nullif(current_setting('snappea.foreman', true), '')::bigint AND status = 'ready' AND is_async = %s
        AND NOT EXISTS (SELECT 1 FROM snappea_pause WHERE snappea_pause.queue = snappea_task.queue)
    ORDER BY priority DESC, coalesce(turn, id), id LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING -priority, id, claims, task_name, args, kwargs, queue, attempts,
    enqueued_at, is_async, started_at, CASE WHEN num_nonnulls(result_ttl, lane, parent_id, batch_id, expires_at,
        run_after, nullif(interruptions, 0), nullif(is_sensitive, false), backend) > 0
    THEN json_build_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
        'lane', lane, 'lane_interval', lane_interval,
        'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
        'passes_result', CASE WHEN EXISTS (SELECT 1 FROM snappea_batch
            WHERE snappea_batch.id = snappea_task.batch_id
                AND substr(on_success, 1, 15) = '{"takes_result"')
        THEN NOT EXISTS (SELECT 1 FROM snappea_task AS other
            WHERE other.batch_id = snappea_task.batch_id AND other.batch_id IS NOT NULL
                AND other.id < snappea_task.id)
        ELSE false END,
        'expires_at', to_char(expires_at, 'YYYY-MM-DD HH24:MI:SS.US'), 'run_after', to_char(run_after, 'YYYY-MM-DD HH24:MI:SS.US'),
        'is_sensitive', is_sensitive, 'origin',
        CASE WHEN backend <> '' THEN json_build_object('backend', backend,
            'overrides', overrides, 'started_at', to_char(started_at, 'YYYY-MM-DD HH24:MI:SS.US'),
            'first_started_at', to_char(first_started_at, 'YYYY-MM-DD HH24:MI:SS.US'), 'errors', errors) END)::text END

-- queue.statements.CLAIM_THESE, SQLite
UPDATE snappea_task SET status = 'running',
    started_at = ?, attempts = attempts + 1, claims = claims + 1 WHERE id IN (
    SELECT id FROM snappea_task WHERE id IN (SELECT value FROM json_each(?)) AND +status = 'ready' )
RETURNING -priority, id, claims, task_name, args, kwargs, queue, attempts,
    +enqueued_at, +is_async, +started_at, CASE WHEN coalesce(result_ttl, lane, parent_id, batch_id, expires_at, run_after,
        nullif(interruptions, 0), nullif(is_sensitive, 0), -1) <> -1
    THEN json_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
        'lane', lane, 'lane_interval', lane_interval,
        'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
        'passes_result', CASE WHEN EXISTS (SELECT 1 FROM snappea_batch
            WHERE snappea_batch.id = snappea_task.batch_id
                AND substr(on_success, 1, 15) = '{"takes_result"')
        THEN NOT EXISTS (SELECT 1 FROM snappea_task AS other
            WHERE other.batch_id = snappea_task.batch_id AND other.batch_id IS NOT NULL
                AND other.id < snappea_task.id)
        ELSE false END, 'expires_at', expires_at,
        'run_after', run_after, 'is_sensitive', is_sensitive, 'origin',
        json(CASE WHEN coalesce(backend, '') <> '' THEN json_object('backend', backend,
            'overrides', overrides, 'started_at', started_at, 'first_started_at', first_started_at,
            'errors', errors) END)) END

-- queue.statements.CLAIM_THESE, PostgreSQL
UPDATE snappea_task SET status = 'running', foreman_id = nullif(current_setting('snappea.foreman', true), '')::bigint,
    started_at = %s, attempts = attempts + 1, claims = claims + 1 WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task WHERE id = ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(%s::json))) AND status = 'ready' FOR UPDATE SKIP LOCKED))
RETURNING -priority, id, claims, task_name, args, kwargs, queue, attempts,
    enqueued_at, is_async, started_at, CASE WHEN num_nonnulls(result_ttl, lane, parent_id, batch_id, expires_at,
        run_after, nullif(interruptions, 0), nullif(is_sensitive, false), backend) > 0
    THEN json_build_object('result_ttl', result_ttl, 'keeps_result', keeps_result,
        'lane', lane, 'lane_interval', lane_interval,
        'interruptions', interruptions, 'parent_id', parent_id, 'batch_id', batch_id,
        'passes_result', CASE WHEN EXISTS (SELECT 1 FROM snappea_batch
            WHERE snappea_batch.id = snappea_task.batch_id
                AND substr(on_success, 1, 15) = '{"takes_result"')
        THEN NOT EXISTS (SELECT 1 FROM snappea_task AS other
            WHERE other.batch_id = snappea_task.batch_id AND other.batch_id IS NOT NULL
                AND other.id < snappea_task.id)
        ELSE false END,
        'expires_at', to_char(expires_at, 'YYYY-MM-DD HH24:MI:SS.US'), 'run_after', to_char(run_after, 'YYYY-MM-DD HH24:MI:SS.US'),
        'is_sensitive', is_sensitive, 'origin',
        CASE WHEN backend <> '' THEN json_build_object('backend', backend,
            'overrides', overrides, 'started_at', to_char(started_at, 'YYYY-MM-DD HH24:MI:SS.US'),
            'first_started_at', to_char(first_started_at, 'YYYY-MM-DD HH24:MI:SS.US'), 'errors', errors) END)::text END

-- queue.statements.CLOSE, SQLite
INSERT INTO snappea_opening (lane, opens_at) VALUES (?, ?)
ON CONFLICT (lane) DO UPDATE SET opens_at = excluded.opens_at

-- queue.statements.CLOSE, PostgreSQL
INSERT INTO snappea_opening (lane, opens_at) VALUES (%s, %s)
ON CONFLICT (lane) DO UPDATE SET opens_at = excluded.opens_at

-- queue.statements.CONFIRM, SQLite
UPDATE snappea_pause SET heard_by = heard_by || ' ' || 0 || ' ' WHERE queue = ? AND since = ?

-- queue.statements.CONFIRM, PostgreSQL
UPDATE snappea_pause SET heard_by = heard_by || ' ' || nullif(current_setting('snappea.foreman', true), '')::bigint || ' ' WHERE queue = %s AND since = %s

-- queue.statements.DELETE, SQLite
DELETE FROM snappea_task WHERE id = ? AND claims = ? AND status IN ('failed', 'interrupted', 'cancelled', 'successful')

-- queue.statements.DELETE, PostgreSQL
DELETE FROM snappea_task WHERE id = %s AND claims = %s AND status IN ('failed', 'interrupted', 'cancelled', 'successful')

-- queue.statements.DISCARD, SQLite
DELETE FROM snappea_task WHERE id IN (SELECT value FROM json_each(?)) AND +status = 'ready' AND gate = 2 AND (CAST(? AS text) IS NULL OR queue IN (SELECT value FROM json_each(?)))
    AND NOT queue IN (SELECT snappea_pause.queue FROM snappea_pause)
RETURNING id, task_name, status, lane, batch_id

-- queue.statements.DISCARD, PostgreSQL
DELETE FROM snappea_task WHERE id = ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(%s::json))) AND status = 'ready' AND gate = 2 AND (CAST(%s AS text) IS NULL OR queue IN (SELECT value FROM json_array_elements_text(%s::json)))
    AND NOT queue IN (SELECT snappea_pause.queue FROM snappea_pause)
RETURNING id, task_name, status, lane, batch_id

-- queue.statements.EXPIRE, SQLite
DELETE FROM snappea_task WHERE id IN (
    SELECT id FROM snappea_task WHERE expires_at <= ? AND expires_at IS NOT NULL
    AND status IN ('ready', 'scheduled', 'successful')
    ORDER BY expires_at LIMIT ? )
RETURNING id, task_name, status, lane, batch_id

-- queue.statements.EXPIRE, PostgreSQL
DELETE FROM snappea_task WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task WHERE expires_at <= %s AND expires_at IS NOT NULL
    AND status IN ('ready', 'scheduled', 'successful')
    ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id, task_name, status, lane, batch_id

-- queue.statements.EXPIRE_CLAIMED, SQLite
DELETE FROM snappea_task WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.EXPIRE_CLAIMED, PostgreSQL
DELETE FROM snappea_task WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.FAIL, SQLite
UPDATE snappea_task SET
    status = 'failed', finished_at = ?, expires_at = NULL, exception = ?, place = ?, error = ?,
    errors = substr(errors || json_set(?, '$.attempt', attempts) || char(10),
        CASE WHEN backend IS NULL THEN -20000 ELSE -200000 END)
WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.FAIL, PostgreSQL
UPDATE snappea_task SET foreman_id = NULL,
    status = 'failed', finished_at = %s, expires_at = NULL, exception = %s, place = %s, error = %s,
    errors = right(errors || '{"attempt": ' || attempts || substr(%s, 17) || chr(10),
        CASE WHEN backend IS NULL THEN 20000 ELSE 200000 END)
WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.FIRST, SQLite
SELECT -priority, id, queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue = ?
ORDER BY priority DESC, coalesce(turn, id), id LIMIT ?

-- queue.statements.FIRST, PostgreSQL
SELECT -priority, id, queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = %s AND queue = %s
ORDER BY priority DESC, coalesce(turn, id), id LIMIT %s

-- queue.statements.FORGET_OPENINGS, SQLite
DELETE FROM snappea_opening WHERE lane IN (
    SELECT lane FROM snappea_opening WHERE opens_at <= ? ORDER BY opens_at LIMIT ? )

-- queue.statements.FORGET_OPENINGS, PostgreSQL
DELETE FROM snappea_opening WHERE lane = ANY(ARRAY(
    SELECT lane FROM snappea_opening WHERE opens_at <= %s ORDER BY opens_at LIMIT %s FOR UPDATE SKIP LOCKED))

-- queue.statements.FORGET_UNIQUE, SQLite
DELETE FROM snappea_uniqueuntil WHERE key IN (
    SELECT key FROM snappea_uniqueuntil WHERE until <= ? ORDER BY until LIMIT ? )

-- queue.statements.FORGET_UNIQUE, PostgreSQL
DELETE FROM snappea_uniqueuntil WHERE key = ANY(ARRAY(
    SELECT key FROM snappea_uniqueuntil WHERE until <= %s ORDER BY until LIMIT %s FOR UPDATE SKIP LOCKED))

-- queue.statements.FRONT, SQLite
SELECT coalesce(turn, id) FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue = ? AND priority = ?
ORDER BY coalesce(turn, id) LIMIT 1

-- queue.statements.FRONT, PostgreSQL
SELECT coalesce(turn, id) FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = %s AND queue = %s AND priority = %s
ORDER BY coalesce(turn, id) LIMIT 1

-- queue.statements.FRONT_OF_GROUP, SQLite
SELECT coalesce(turn, id) FROM snappea_task
WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = 2 AND priority = ? AND (turn IS NOT NULL OR fair_key IS NULL)
ORDER BY coalesce(turn, id) LIMIT 1

-- queue.statements.FRONT_OF_GROUP, PostgreSQL
SELECT coalesce(turn, id) FROM snappea_task
WHERE lane = %s AND lane IS NOT NULL AND status = 'ready' AND gate = 2 AND priority = %s AND (turn IS NOT NULL OR fair_key IS NULL)
ORDER BY coalesce(turn, id) LIMIT 1

-- queue.statements.GIVE_BACK, SQLite
UPDATE snappea_task SET
    status = CASE WHEN is_revoked THEN 'cancelled' ELSE 'ready' END,
    started_at = NULL, attempts = attempts - 1, unique_key = CASE WHEN unique_key IS NOT NULL AND (
        EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
            AND other.id <> snappea_task.id)
        OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_running AND other.unique_running = 1
            AND other.status IN ('ready', 'scheduled', 'running')
            AND other.id <> snappea_task.id)
    ) THEN NULL ELSE unique_key END, gate = CASE WHEN gate = 3 AND foreman_id IS NOT NULL THEN 3
        WHEN lane IS NULL AND fair_key IS NULL THEN 0 ELSE 1 END
WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.GIVE_BACK, PostgreSQL
UPDATE snappea_task SET foreman_id = CASE WHEN gate = 3 THEN foreman_id END,
    status = CASE WHEN is_revoked THEN 'cancelled' ELSE 'ready' END,
    started_at = NULL, attempts = attempts - 1, unique_key = CASE WHEN unique_key IS NOT NULL AND (
        EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
            AND other.id <> snappea_task.id)
        OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_running AND other.unique_running = true
            AND other.status IN ('ready', 'scheduled', 'running')
            AND other.id <> snappea_task.id)
    ) THEN NULL ELSE unique_key END, gate = CASE WHEN gate = 3 AND foreman_id IS NOT NULL THEN 3
        WHEN lane IS NULL AND fair_key IS NULL THEN 0 ELSE 1 END
WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running' AND foreman_id IS NOT DISTINCT FROM nullif(current_setting('snappea.foreman', true), '')::bigint

-- queue.statements.GIVE_TURN, SQLite
UPDATE snappea_task SET turn = ?, gate = CASE WHEN lane IS NULL THEN 0 ELSE gate END WHERE id = ?

-- queue.statements.GIVE_TURN, PostgreSQL
UPDATE snappea_task SET turn = %s, gate = CASE WHEN lane IS NULL THEN 0 ELSE gate END WHERE id = %s

-- queue.statements.GROUPS, SQLite
SELECT DISTINCT lane FROM snappea_task
WHERE task_name = ? AND lane IS NOT NULL AND status = 'ready' AND gate IN (0, 2)

-- queue.statements.GROUPS, PostgreSQL
SELECT DISTINCT lane FROM snappea_task
WHERE task_name = %s AND lane IS NOT NULL AND status = 'ready' AND gate IN (0, 2)

-- queue.statements.HAND_OVER, SQLite
INSERT INTO snappea_handover (key, task_name, call, expires_at) VALUES (?, ?, ?, ?)
ON CONFLICT DO NOTHING

-- queue.statements.HAND_OVER, PostgreSQL
INSERT INTO snappea_handover (key, task_name, call, expires_at) VALUES (%s, %s, %s, %s)
ON CONFLICT DO NOTHING

-- queue.statements.HEARD_BY, SQLite
SELECT heard_by FROM snappea_pause WHERE queue = ?

-- queue.statements.HEARD_BY, PostgreSQL
SELECT heard_by FROM snappea_pause WHERE queue = %s

-- queue.statements.HELD, SQLite
SELECT task_id FROM snappea_uniqueuntil WHERE key = ? AND until > ?

-- queue.statements.HELD, PostgreSQL
SELECT task_id FROM snappea_uniqueuntil WHERE key = %s AND until > %s

-- queue.statements.HOLD, SQLite
INSERT INTO snappea_uniqueuntil (key, task_id, until) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET task_id = excluded.task_id, until = excluded.until
WHERE snappea_uniqueuntil.until <= ?

-- queue.statements.HOLD, PostgreSQL
INSERT INTO snappea_uniqueuntil (key, task_id, until) VALUES (%s, %s, %s)
ON CONFLICT (key) DO UPDATE SET task_id = excluded.task_id, until = excluded.until
WHERE snappea_uniqueuntil.until <= %s

-- queue.statements.HOLD_GATES, SQLite
SELECT 1

-- queue.statements.HOLD_GATES, PostgreSQL
SELECT pg_advisory_xact_lock(1936613744, 1)

-- queue.statements.IDENTICAL, SQLite
SELECT id FROM snappea_task WHERE unique_key = ?
    AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')
UNION ALL SELECT id FROM snappea_task WHERE unique_key = ?
    AND unique_running AND unique_running = 1 AND status IN ('ready', 'scheduled', 'running')
LIMIT 1

-- queue.statements.IDENTICAL, PostgreSQL
SELECT id FROM snappea_task WHERE unique_key = %s
    AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')
UNION ALL SELECT id FROM snappea_task WHERE unique_key = %s
    AND unique_running AND unique_running = true AND status IN ('ready', 'scheduled', 'running')
LIMIT 1

-- queue.statements.INSERT, SQLite
INSERT INTO snappea_task (task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- queue.statements.INSERT, PostgreSQL
INSERT INTO snappea_task (task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at)
VALUES (%s, %s, %s, %s, %s, %s::int::boolean, %s::int::boolean, %s) RETURNING id

-- queue.statements.INSERT_MANY, SQLite
INSERT INTO snappea_task (task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at)
SELECT ?, value, ?, ?, ?, ?, ?, ? FROM json_each(?)

-- queue.statements.INSERT_MANY, PostgreSQL
INSERT INTO snappea_task (task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at)
SELECT %s, value, %s, %s, %s, %s::int::boolean, %s::int::boolean, %s FROM json_array_elements_text(%s::json) RETURNING id

-- queue.statements.INSERT_MORE, SQLite
INSERT INTO snappea_task (
    task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at, status, gate, run_after,
    expires_at, result_ttl, parent_id, unique_key, unique_running, lane, lane_limit, lane_interval,
    is_sensitive, backend, overrides, keeps_result, tags, lane_burst, batch_id, fair_key,
    lane_discards)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING

-- queue.statements.INSERT_MORE, PostgreSQL
INSERT INTO snappea_task (
    task_name, args, kwargs, queue, priority, acks_late, is_async, enqueued_at, status, gate, run_after,
    expires_at, result_ttl, parent_id, unique_key, unique_running, lane, lane_limit, lane_interval,
    is_sensitive, backend, overrides, keeps_result, tags, lane_burst, batch_id, fair_key,
    lane_discards)
VALUES (%s, %s, %s, %s, %s, %s::int::boolean, %s::int::boolean, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING RETURNING id

-- queue.statements.INTERRUPT, SQLite
UPDATE snappea_task SET
    status = CASE WHEN is_revoked THEN 'cancelled'
        WHEN acks_late AND gate <> 3 AND interruptions - interruptions_forgiven + 1 < ?
            THEN 'ready'
        ELSE 'interrupted' END,
    interruptions = interruptions + 1, finished_at = ?, error = ?,
    errors = substr(errors || json_set(?, '$.attempt', attempts) || char(10),
        CASE WHEN backend IS NULL THEN -20000 ELSE -200000 END), first_started_at = coalesce(first_started_at, started_at), unique_key = CASE WHEN unique_key IS NOT NULL AND (
        EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
            AND other.id <> snappea_task.id)
        OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_running AND other.unique_running = 1
            AND other.status IN ('ready', 'scheduled', 'running')
            AND other.id <> snappea_task.id)
    ) THEN NULL ELSE unique_key END, turn = NULL, gate = CASE WHEN gate = 3 AND foreman_id IS NOT NULL THEN 3
        WHEN lane IS NULL AND fair_key IS NULL THEN 0 ELSE 1 END
WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'
RETURNING status, batch_id

-- queue.statements.INTERRUPT, PostgreSQL
UPDATE snappea_task SET foreman_id = NULL,
    status = CASE WHEN is_revoked THEN 'cancelled'
        WHEN acks_late AND gate <> 3 AND interruptions - interruptions_forgiven + 1 < %s
            THEN 'ready'
        ELSE 'interrupted' END,
    interruptions = interruptions + 1, finished_at = %s, error = %s,
    errors = right(errors || '{"attempt": ' || attempts || substr(%s, 17) || chr(10),
        CASE WHEN backend IS NULL THEN 20000 ELSE 200000 END), first_started_at = coalesce(first_started_at, started_at), unique_key = CASE WHEN unique_key IS NOT NULL AND (
        EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
            AND other.id <> snappea_task.id)
        OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_running AND other.unique_running = true
            AND other.status IN ('ready', 'scheduled', 'running')
            AND other.id <> snappea_task.id)
    ) THEN NULL ELSE unique_key END, turn = NULL, gate = CASE WHEN gate = 3 AND foreman_id IS NOT NULL THEN 3
        WHEN lane IS NULL AND fair_key IS NULL THEN 0 ELSE 1 END
WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'
RETURNING status, batch_id

-- queue.statements.KEEP, SQLite
UPDATE snappea_task SET
    status = 'successful', finished_at = ?, result = ?, expires_at = ?, error = ''
WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.KEEP, PostgreSQL
UPDATE snappea_task SET foreman_id = NULL,
    status = 'successful', finished_at = %s, result = %s, expires_at = %s, error = ''
WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.KEEP_ALL, SQLite
UPDATE snappea_task SET
    status = 'successful', finished_at = ?, expires_at = ?, error = ''
WHERE id IN (SELECT value FROM json_each(?)) AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.KEEP_ALL, PostgreSQL
UPDATE snappea_task SET foreman_id = NULL,
    status = 'successful', finished_at = %s, expires_at = %s, error = ''
WHERE id = ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(%s::json))) AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.KEEP_STEPS, SQLite
UPDATE snappea_task SET steps = ?, interruptions_forgiven = interruptions WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.KEEP_STEPS, PostgreSQL
UPDATE snappea_task SET steps = %s, interruptions_forgiven = interruptions WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.KEEP_WITHOUT_RESULT, SQLite
UPDATE snappea_task SET
    status = 'successful', finished_at = ?, expires_at = datetime(?, '+' || result_ttl || ' seconds'),
    error = CASE WHEN keeps_result THEN ? ELSE '' END
WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running' AND result_ttl IS NOT NULL

-- queue.statements.KEEP_WITHOUT_RESULT, PostgreSQL
UPDATE snappea_task SET foreman_id = NULL,
    status = 'successful', finished_at = %s, expires_at = CAST(%s AS timestamptz) + make_interval(secs => result_ttl),
    error = CASE WHEN keeps_result THEN %s ELSE '' END
WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running' AND result_ttl IS NOT NULL

-- queue.statements.LAST_OF_KEY, SQLite
SELECT turn FROM snappea_task
WHERE fair_key = ? AND is_async = ? AND queue = ? AND priority = ?
    AND turn IS NOT NULL AND status = 'ready'
ORDER BY turn DESC LIMIT 1

-- queue.statements.LAST_OF_KEY, PostgreSQL
SELECT turn FROM snappea_task
WHERE fair_key = %s AND is_async = %s AND queue = %s AND priority = %s
    AND turn IS NOT NULL AND status = 'ready'
ORDER BY turn DESC LIMIT 1

-- queue.statements.LIMITS, both
SELECT lane, max_concurrency, rate_interval, rate_burst FROM snappea_limit ORDER BY lane

-- queue.statements.LOG, SQLite
SELECT CAST(log AS text) FROM snappea_task WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.LOG, PostgreSQL
SELECT CAST(log AS text) FROM snappea_task WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.NEW_KEYS, SQLite
WITH RECURSIVE keys (key) AS (
    SELECT (SELECT coalesce(fair_key, '') FROM snappea_task INDEXED BY snappea_new WHERE gate = 1 AND status = 'ready' ORDER BY coalesce(fair_key, ''), id LIMIT 1)
    UNION ALL
    SELECT (SELECT coalesce(fair_key, '') FROM snappea_task INDEXED BY snappea_new WHERE gate = 1 AND status = 'ready' AND coalesce(fair_key, '') > keys.key
        ORDER BY coalesce(fair_key, ''), id LIMIT 1)
    FROM keys WHERE keys.key IS NOT NULL)
SELECT key FROM keys WHERE key IS NOT NULL LIMIT ?

-- queue.statements.NEW_KEYS, PostgreSQL
WITH RECURSIVE keys (key) AS (
    SELECT (SELECT coalesce(fair_key, '') FROM snappea_task  WHERE gate = 1 AND status = 'ready' ORDER BY coalesce(fair_key, ''), id LIMIT 1)
    UNION ALL
    SELECT (SELECT coalesce(fair_key, '') FROM snappea_task  WHERE gate = 1 AND status = 'ready' AND coalesce(fair_key, '') > keys.key
        ORDER BY coalesce(fair_key, ''), id LIMIT 1)
    FROM keys WHERE keys.key IS NOT NULL)
SELECT key FROM keys WHERE key IS NOT NULL LIMIT %s

-- queue.statements.NEXT_IN_GROUP, SQLite
SELECT task_name, priority, lane_limit, lane_interval, lane_burst FROM snappea_task
WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = 2 AND (CAST(? AS text) IS NULL OR queue IN (SELECT value FROM json_each(?))) AND NOT queue IN (SELECT snappea_pause.queue FROM snappea_pause) ORDER BY priority DESC, coalesce(turn, id), id LIMIT 1

-- queue.statements.NEXT_IN_GROUP, PostgreSQL
SELECT task_name, priority, lane_limit, lane_interval, lane_burst FROM snappea_task
WHERE lane = %s AND lane IS NOT NULL AND status = 'ready' AND gate = 2 AND (CAST(%s AS text) IS NULL OR queue IN (SELECT value FROM json_array_elements_text(%s::json))) AND NOT queue IN (SELECT snappea_pause.queue FROM snappea_pause) ORDER BY priority DESC, coalesce(turn, id), id LIMIT 1

-- queue.statements.OLD_OPENING, SQLite
SELECT 1 FROM snappea_opening WHERE opens_at <= ? LIMIT 1

-- queue.statements.OLD_OPENING, PostgreSQL
SELECT 1 FROM snappea_opening WHERE opens_at <= %s LIMIT 1

-- queue.statements.OPENING, SQLite
SELECT +opens_at FROM snappea_opening WHERE lane = ?

-- queue.statements.OPENING, PostgreSQL
SELECT opens_at FROM snappea_opening WHERE lane = %s

-- queue.statements.OUTDATED, SQLite
SELECT 1 FROM snappea_uniqueuntil WHERE until <= ? LIMIT 1

-- queue.statements.OUTDATED, PostgreSQL
SELECT 1 FROM snappea_uniqueuntil WHERE until <= %s LIMIT 1

-- queue.statements.PAUSE, SQLite
INSERT INTO snappea_pause (queue, since) VALUES (?, ?) ON CONFLICT DO NOTHING

-- queue.statements.PAUSE, PostgreSQL
INSERT INTO snappea_pause (queue, since) VALUES (%s, %s) ON CONFLICT DO NOTHING

-- queue.statements.PAUSED, SQLite
SELECT queue, +since FROM snappea_pause ORDER BY queue

-- queue.statements.PAUSED, PostgreSQL
SELECT queue, since FROM snappea_pause ORDER BY queue

-- queue.statements.PEEK, SQLite
SELECT (SELECT +run_after FROM snappea_task WHERE status = 'scheduled' AND run_after IS NOT NULL
        ORDER BY run_after LIMIT 1),
    (SELECT queue FROM snappea_task
        WHERE status = 'ready' AND gate = 0 AND is_async = 0 ORDER BY queue LIMIT 1),
    (SELECT queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = 0 ORDER BY queue DESC LIMIT 1),
    EXISTS (SELECT 1 FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = 1),
    (SELECT +expires_at FROM snappea_task INDEXED BY snappea_expires
        WHERE expires_at IS NOT NULL AND status IN ('ready', 'scheduled', 'successful')
        ORDER BY expires_at LIMIT 1),
    EXISTS (SELECT 1 FROM snappea_task INDEXED BY snappea_revoked
        WHERE is_revoked AND is_revoked = 1 AND status = 'running'),
    EXISTS (SELECT 1 FROM snappea_task INDEXED BY snappea_new WHERE gate = 1 AND status = 'ready'),
    EXISTS (SELECT 1 FROM snappea_pause),
    EXISTS (SELECT 1 FROM snappea_limit),
    EXISTS (SELECT 1 FROM snappea_pause WHERE replace(heard_by, ' ' || 0 || ' ', '') = heard_by),
    EXISTS (SELECT 1 FROM snappea_task INDEXED BY snappea_addressed
        WHERE foreman_id IS NOT NULL AND foreman_id = 0 AND status = 'ready'),
    (SELECT min(next_run) FROM snappea_schedule INDEXED BY snappea_next_run
        WHERE NOT is_paused AND is_paused = 0)

-- queue.statements.PEEK, PostgreSQL
SELECT (SELECT run_after FROM snappea_task WHERE status = 'scheduled' AND run_after IS NOT NULL
        ORDER BY run_after LIMIT 1),
    coalesce(
        (SELECT queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = false AND queue < (SELECT queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = false ORDER BY queue DESC LIMIT 1) ORDER BY queue LIMIT 1), (SELECT queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = false ORDER BY queue DESC LIMIT 1)),
    (SELECT queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = false ORDER BY queue DESC LIMIT 1),
    EXISTS (SELECT 1 FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = true),
    (SELECT expires_at FROM snappea_task
        WHERE expires_at IS NOT NULL AND status IN ('ready', 'scheduled', 'successful')
        ORDER BY expires_at LIMIT 1),
    EXISTS (SELECT 1 FROM snappea_task
        WHERE is_revoked AND is_revoked = true AND status = 'running'),
    EXISTS (SELECT 1 FROM snappea_task  WHERE gate = 1 AND status = 'ready'),
    EXISTS (SELECT 1 FROM snappea_pause),
    EXISTS (SELECT 1 FROM snappea_limit),
    EXISTS (SELECT 1 FROM snappea_pause WHERE replace(heard_by, ' ' || nullif(current_setting('snappea.foreman', true), '')::bigint || ' ', '') = heard_by),
    EXISTS (SELECT 1 FROM snappea_task
        WHERE foreman_id IS NOT NULL AND foreman_id = nullif(current_setting('snappea.foreman', true), '')::bigint AND status = 'ready'),
    (SELECT min(next_run) FROM snappea_schedule
        WHERE NOT is_paused AND is_paused = false)

-- queue.statements.PROGRESS, SQLite
UPDATE snappea_task SET progress_done = ?, progress_total = ?, progress_note = ? WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.PROGRESS, PostgreSQL
UPDATE snappea_task SET progress_done = %s, progress_total = %s, progress_note = %s WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.PROMOTE, SQLite
UPDATE snappea_task SET status = 'ready' WHERE id IN (
    SELECT id FROM snappea_task WHERE status = 'scheduled' AND run_after <= ?
    ORDER BY run_after, id LIMIT ? )

-- queue.statements.PROMOTE, PostgreSQL
UPDATE snappea_task SET status = 'ready' WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task WHERE status = 'scheduled' AND run_after <= %s
    ORDER BY run_after, id LIMIT %s FOR UPDATE SKIP LOCKED))

-- queue.statements.QUEUES, SQLite
WITH RECURSIVE waiting (queue) AS (
    SELECT (SELECT queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = ? ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM snappea_task
            WHERE status = 'ready' AND gate = 0 AND is_async = ? AND queue > waiting.queue ORDER BY queue LIMIT 1)
    FROM waiting WHERE waiting.queue IS NOT NULL)
SELECT queue FROM waiting WHERE queue IS NOT NULL

-- queue.statements.QUEUES, PostgreSQL
WITH RECURSIVE waiting (queue) AS (
    SELECT (SELECT queue FROM snappea_task WHERE status = 'ready' AND gate = 0 AND is_async = %s ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT queue FROM snappea_task
            WHERE status = 'ready' AND gate = 0 AND is_async = %s AND queue > waiting.queue ORDER BY queue LIMIT 1)
    FROM waiting WHERE waiting.queue IS NOT NULL)
SELECT queue FROM waiting WHERE queue IS NOT NULL

-- queue.statements.RECALL, SQLite
UPDATE snappea_task SET gate = 1 WHERE lane IS NOT NULL AND status = 'ready' AND gate = 0 AND queue = ?

-- queue.statements.RECALL, PostgreSQL
UPDATE snappea_task SET gate = 1 WHERE lane IS NOT NULL AND status = 'ready' AND gate = 0 AND queue = %s

-- queue.statements.RECALL_GROUP, SQLite
UPDATE snappea_task SET gate = 1 WHERE id IN (
    SELECT id FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = 0
    ORDER BY priority DESC, coalesce(turn, id), id )

-- queue.statements.RECALL_GROUP, PostgreSQL
UPDATE snappea_task SET gate = 1 WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task WHERE lane = %s AND lane IS NOT NULL AND status = 'ready' AND gate = 0
    ORDER BY priority DESC, coalesce(turn, id), id FOR UPDATE SKIP LOCKED))

-- queue.statements.RECHECK, SQLite
UPDATE snappea_task SET gate = 1 WHERE id IN (
    SELECT id FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = 2
    ORDER BY priority DESC, coalesce(turn, id), id LIMIT 1 )

-- queue.statements.RECHECK, PostgreSQL
UPDATE snappea_task SET gate = 1 WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task WHERE lane = %s AND lane IS NOT NULL AND status = 'ready' AND gate = 2
    ORDER BY priority DESC, coalesce(turn, id), id LIMIT 1 FOR UPDATE SKIP LOCKED))

-- queue.statements.RECHECK_ALL, SQLite
UPDATE snappea_task SET gate = 1 WHERE id IN (
    SELECT id FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready'
        AND gate IN (0, 2) )

-- queue.statements.RECHECK_ALL, PostgreSQL
UPDATE snappea_task SET gate = 1 WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task WHERE lane IS NOT NULL AND status = 'ready'
        AND gate IN (0, 2) FOR UPDATE SKIP LOCKED))

-- queue.statements.RELEASE, SQLite
DELETE FROM snappea_uniqueuntil WHERE (key, task_id) = (
    SELECT unique_key, id FROM snappea_task
    WHERE id = ? AND status IN ('ready', 'scheduled') )

-- queue.statements.RELEASE, PostgreSQL
DELETE FROM snappea_uniqueuntil WHERE (key, task_id) = (
    SELECT unique_key, id FROM snappea_task
    WHERE id = %s AND status IN ('ready', 'scheduled') FOR UPDATE)

-- queue.statements.REPLACE, SQLite
UPDATE snappea_task SET
    args = ?, kwargs = ?, queue = ?, priority = ?, status = ?, gate = ?, run_after = ?, expires_at = ?,
    lane = ?, lane_limit = ?, lane_interval = ?, lane_burst = ?, lane_discards = ?, tags = ?,
    fair_key = ?, turn = NULL, attempts = 0, interruptions = 0, interruptions_forgiven = 0, steps = ''
WHERE id = ? AND status IN ('ready', 'scheduled')

-- queue.statements.REPLACE, PostgreSQL
UPDATE snappea_task SET
    args = %s, kwargs = %s, queue = %s, priority = %s, status = %s, gate = %s, run_after = %s, expires_at = %s,
    lane = %s, lane_limit = %s, lane_interval = %s, lane_burst = %s, lane_discards = %s, tags = %s,
    fair_key = %s, turn = NULL, attempts = 0, interruptions = 0, interruptions_forgiven = 0, steps = ''
WHERE id = %s AND status IN ('ready', 'scheduled')

-- queue.statements.REQUEUE, SQLite
UPDATE snappea_task SET
    status = CASE WHEN CAST(? AS text) IS NULL THEN 'ready' ELSE 'scheduled' END, run_after = ?,
    attempts = 0, interruptions = 0, interruptions_forgiven = 0, is_revoked = 0,
    steps = CASE WHEN status = 'successful' THEN '' ELSE steps END,
    started_at = NULL, first_started_at = NULL, finished_at = NULL, expires_at = NULL, result = NULL,
    progress_done = NULL, progress_total = NULL, progress_note = '', unique_key = CASE WHEN unique_key IS NOT NULL AND (
        EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
            AND other.id <> snappea_task.id)
        OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_running AND other.unique_running = 1
            AND other.status IN ('ready', 'scheduled', 'running')
            AND other.id <> snappea_task.id)
    ) THEN NULL ELSE unique_key END, turn = NULL, gate = CASE WHEN gate = 3 AND foreman_id IS NOT NULL THEN 3
        WHEN lane IS NULL AND fair_key IS NULL THEN 0 ELSE 1 END
WHERE id = ? AND claims = ? AND (status = 'scheduled' OR status IN ('failed', 'interrupted', 'cancelled', 'successful'))

-- queue.statements.REQUEUE, PostgreSQL
UPDATE snappea_task SET
    status = CASE WHEN CAST(%s AS text) IS NULL THEN 'ready' ELSE 'scheduled' END, run_after = %s,
    attempts = 0, interruptions = 0, interruptions_forgiven = 0, is_revoked = false,
    steps = CASE WHEN status = 'successful' THEN '' ELSE steps END,
    started_at = NULL, first_started_at = NULL, finished_at = NULL, expires_at = NULL, result = NULL,
    progress_done = NULL, progress_total = NULL, progress_note = '', unique_key = CASE WHEN unique_key IS NOT NULL AND (
        EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
            AND other.id <> snappea_task.id)
        OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_running AND other.unique_running = true
            AND other.status IN ('ready', 'scheduled', 'running')
            AND other.id <> snappea_task.id)
    ) THEN NULL ELSE unique_key END, turn = NULL, gate = CASE WHEN gate = 3 AND foreman_id IS NOT NULL THEN 3
        WHEN lane IS NULL AND fair_key IS NULL THEN 0 ELSE 1 END
WHERE id = %s AND claims = %s AND (status = 'scheduled' OR status IN ('failed', 'interrupted', 'cancelled', 'successful'))

-- queue.statements.RESET_LIMITS, SQLite
DELETE FROM snappea_limit WHERE lane = ?

-- queue.statements.RESET_LIMITS, PostgreSQL
DELETE FROM snappea_limit WHERE lane = %s

-- queue.statements.RESUME, SQLite
DELETE FROM snappea_pause WHERE queue = ?

-- queue.statements.RESUME, PostgreSQL
DELETE FROM snappea_pause WHERE queue = %s

-- queue.statements.RETRY, SQLite
UPDATE snappea_task SET
    status = 'scheduled', run_after = ?, error = ?, errors = substr(errors || json_set(?, '$.attempt', attempts) || char(10),
        CASE WHEN backend IS NULL THEN -20000 ELSE -200000 END), first_started_at = coalesce(first_started_at, started_at), unique_key = CASE WHEN unique_key IS NOT NULL AND (
        EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
            AND other.id <> snappea_task.id)
        OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_running AND other.unique_running = 1
            AND other.status IN ('ready', 'scheduled', 'running')
            AND other.id <> snappea_task.id)
    ) THEN NULL ELSE unique_key END, turn = NULL, gate = CASE WHEN gate = 3 AND foreman_id IS NOT NULL THEN 3
        WHEN lane IS NULL AND fair_key IS NULL THEN 0 ELSE 1 END
WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.RETRY, PostgreSQL
UPDATE snappea_task SET foreman_id = CASE WHEN gate = 3 THEN foreman_id END,
    status = 'scheduled', run_after = %s, error = %s, errors = right(errors || '{"attempt": ' || attempts || substr(%s, 17) || chr(10),
        CASE WHEN backend IS NULL THEN 20000 ELSE 200000 END), first_started_at = coalesce(first_started_at, started_at), unique_key = CASE WHEN unique_key IS NOT NULL AND (
        EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_key IS NOT NULL AND other.status IN ('ready', 'scheduled')
            AND other.id <> snappea_task.id)
        OR EXISTS (SELECT 1 FROM snappea_task AS other WHERE other.unique_key = snappea_task.unique_key
            AND other.unique_running AND other.unique_running = true
            AND other.status IN ('ready', 'scheduled', 'running')
            AND other.id <> snappea_task.id)
    ) THEN NULL ELSE unique_key END, turn = NULL, gate = CASE WHEN gate = 3 AND foreman_id IS NOT NULL THEN 3
        WHEN lane IS NULL AND fair_key IS NULL THEN 0 ELSE 1 END
WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.REVOKE, SQLite
UPDATE snappea_task SET is_revoked = 1 WHERE id = ? AND status = 'running'

-- queue.statements.REVOKE, PostgreSQL
UPDATE snappea_task SET is_revoked = true WHERE id = %s AND status = 'running'

-- queue.statements.REVOKED, SQLite
SELECT id, claims, +started_at FROM snappea_task INDEXED BY snappea_revoked
WHERE is_revoked AND is_revoked = 1 AND status = 'running'

-- queue.statements.REVOKED, PostgreSQL
SELECT id, claims, started_at FROM snappea_task
WHERE is_revoked AND is_revoked = true AND status = 'running'

-- queue.statements.RUNNING, SQLite
SELECT id, claims, +started_at, task_name, batch_id FROM snappea_task
WHERE status = 'running'  ORDER BY id

-- queue.statements.RUNNING, PostgreSQL
SELECT id, claims, started_at, task_name, batch_id FROM snappea_task
WHERE status = 'running' AND foreman_id IS NOT NULL AND foreman_id = nullif(current_setting('snappea.foreman', true), '')::bigint ORDER BY id

-- queue.statements.SET_ASIDE, SQLite
UPDATE snappea_task SET
    status = CASE WHEN status IN ('interrupted', 'successful', 'cancelled') THEN status ELSE 'failed' END,
    finished_at = ?, exception = 'UnusableRow', place = '', error = ? {repairs} WHERE id = ?

-- queue.statements.SET_ASIDE, PostgreSQL
UPDATE snappea_task SET
    status = CASE WHEN status IN ('interrupted', 'successful', 'cancelled') THEN status ELSE 'failed' END,
    finished_at = %s, exception = 'UnusableRow', place = '', error = %s {repairs} WHERE id = %s

-- queue.statements.SET_LIMITS, SQLite
INSERT INTO snappea_limit (lane, max_concurrency, rate_interval, rate_burst) VALUES (?, ?, ?, ?)
ON CONFLICT (lane) DO UPDATE SET
    max_concurrency = coalesce(excluded.max_concurrency, snappea_limit.max_concurrency),
    rate_burst = CASE WHEN excluded.rate_interval IS NULL
        THEN snappea_limit.rate_burst ELSE excluded.rate_burst END,
    rate_interval = coalesce(excluded.rate_interval, snappea_limit.rate_interval)

-- queue.statements.SET_LIMITS, PostgreSQL
INSERT INTO snappea_limit (lane, max_concurrency, rate_interval, rate_burst) VALUES (%s, %s, %s, %s)
ON CONFLICT (lane) DO UPDATE SET
    max_concurrency = coalesce(excluded.max_concurrency, snappea_limit.max_concurrency),
    rate_burst = CASE WHEN excluded.rate_interval IS NULL
        THEN snappea_limit.rate_burst ELSE excluded.rate_burst END,
    rate_interval = coalesce(excluded.rate_interval, snappea_limit.rate_interval)

-- queue.statements.SET_LOG, SQLite
UPDATE snappea_task SET log = ? WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.SET_LOG, PostgreSQL
UPDATE snappea_task SET log = %s WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.STEPS, SQLite
SELECT CAST(steps AS text) FROM snappea_task WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.STEPS, PostgreSQL
SELECT CAST(steps AS text) FROM snappea_task WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.SUCCEED_ALL, SQLite
DELETE FROM snappea_task
WHERE id IN (SELECT value FROM json_each(?)) AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.SUCCEED_ALL, PostgreSQL
DELETE FROM snappea_task
WHERE id = ANY(ARRAY(SELECT value::bigint FROM json_array_elements_text(%s::json))) AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.TAKEN, SQLite
SELECT status, count(*) FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND status IN ('ready', 'running') AND gate = 0
GROUP BY status

-- queue.statements.TAKEN, PostgreSQL
SELECT status, count(*) FROM snappea_task WHERE lane = %s AND lane IS NOT NULL AND status IN ('ready', 'running') AND gate = 0
GROUP BY status

-- queue.statements.TERMINATE, SQLite
UPDATE snappea_task SET
    status = 'cancelled', finished_at = ?, expires_at = NULL, error = ?, errors = substr(errors || json_set(?, '$.attempt', attempts) || char(10),
        CASE WHEN backend IS NULL THEN -20000 ELSE -200000 END)
WHERE id = ? AND claims = ? AND +started_at IS ? AND status = 'running'

-- queue.statements.TERMINATE, PostgreSQL
UPDATE snappea_task SET foreman_id = NULL,
    status = 'cancelled', finished_at = %s, expires_at = NULL, error = %s, errors = right(errors || '{"attempt": ' || attempts || substr(%s, 17) || chr(10),
        CASE WHEN backend IS NULL THEN 20000 ELSE 200000 END)
WHERE id = %s AND claims = %s AND started_at IS NOT DISTINCT FROM %s AND status = 'running'

-- queue.statements.UNHEARD, SQLite
SELECT queue, +since FROM snappea_pause
WHERE replace(heard_by, ' ' || 0 || ' ', '') = heard_by

-- queue.statements.UNHEARD, PostgreSQL
SELECT queue, since FROM snappea_pause
WHERE replace(heard_by, ' ' || nullif(current_setting('snappea.foreman', true), '')::bigint || ' ', '') = heard_by

-- queue.statements.WAITING_TWIN, SQLite
SELECT id, lane, +enqueued_at FROM snappea_task
WHERE unique_key = ? AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')

-- queue.statements.WAITING_TWIN, PostgreSQL
SELECT id, lane, enqueued_at FROM snappea_task
WHERE unique_key = %s AND unique_key IS NOT NULL AND status IN ('ready', 'scheduled')

-- queue.statements.YIELD, SQLite
UPDATE snappea_task SET gate = 2 WHERE id IN (
    SELECT id FROM snappea_task WHERE lane = ? AND lane IS NOT NULL AND status = 'ready' AND gate = 0 AND priority < ? AND (CAST(? AS text) IS NULL OR queue IN (SELECT value FROM json_each(?)))
    ORDER BY priority DESC, coalesce(turn, id), id )

-- queue.statements.YIELD, PostgreSQL
UPDATE snappea_task SET gate = 2 WHERE id = ANY(ARRAY(
    SELECT id FROM snappea_task WHERE lane = %s AND lane IS NOT NULL AND status = 'ready' AND gate = 0 AND priority < %s AND (CAST(%s AS text) IS NULL OR queue IN (SELECT value FROM json_array_elements_text(%s::json)))
    ORDER BY priority DESC, coalesce(turn, id), id FOR UPDATE SKIP LOCKED))

-- queue.statements._NOTE_LAST, SQLite
UPDATE snappea_schedule SET last_outcome = ? WHERE last_task_id = ?
    AND NOT EXISTS (SELECT 1 FROM snappea_task WHERE id = snappea_schedule.last_task_id)

-- queue.statements._NOTE_LAST, PostgreSQL
UPDATE snappea_schedule SET last_outcome = %s WHERE last_task_id = %s
    AND NOT EXISTS (SELECT 1 FROM snappea_task WHERE id = snappea_schedule.last_task_id)

-- queue.statements._NOTE_RUN, SQLite
UPDATE snappea_schedulerun SET outcome = ? WHERE task_id = ?
    AND NOT EXISTS (SELECT 1 FROM snappea_task WHERE id = snappea_schedulerun.task_id)

-- queue.statements._NOTE_RUN, PostgreSQL
UPDATE snappea_schedulerun SET outcome = %s WHERE task_id = %s
    AND NOT EXISTS (SELECT 1 FROM snappea_task WHERE id = snappea_schedulerun.task_id)

-- schedules.__init__._PAUSE, SQLite
UPDATE snappea_schedule SET is_paused = 1 WHERE name = ?

-- schedules.__init__._PAUSE, PostgreSQL
UPDATE snappea_schedule SET is_paused = true WHERE name = %s

-- schedules.__init__._RESUME, SQLite
UPDATE snappea_schedule SET is_paused = 0, next_run = ? WHERE name = ?

-- schedules.__init__._RESUME, PostgreSQL
UPDATE snappea_schedule SET is_paused = false, next_run = %s WHERE name = %s

-- schedules.rows.ADD, SQLite
INSERT INTO snappea_schedule (name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, declared, is_added, last_outcome, is_paused)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT (name) DO  NOTHING

-- schedules.rows.ADD, PostgreSQL
INSERT INTO snappea_schedule (name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, declared, is_added, last_outcome, is_paused)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, '', %s) ON CONFLICT (name) DO  NOTHING

-- schedules.rows.ALL, SQLite
SELECT name, task_name, expression, timezone, args, kwargs, queue, catch_up, +next_run, +last_run, declared, +is_added
FROM snappea_schedule ORDER BY next_run, id

-- schedules.rows.ALL, PostgreSQL
SELECT name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, last_run, declared, is_added
FROM snappea_schedule ORDER BY next_run, id FOR UPDATE

-- schedules.rows.DUE, SQLite
SELECT name, task_name, expression, timezone, args, kwargs, queue, catch_up, +next_run, +last_run, declared, +is_added
FROM snappea_schedule
WHERE NOT is_paused AND is_paused = 0 AND next_run <= ? ORDER BY next_run, id

-- schedules.rows.DUE, PostgreSQL
SELECT name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, last_run, declared, is_added
FROM snappea_schedule
WHERE NOT is_paused AND is_paused = false AND next_run <= %s ORDER BY next_run, id

-- schedules.rows.EACH, SQLite
SELECT name, task_name, expression, timezone, args, kwargs, queue, catch_up, +next_run, +last_run, declared, +is_added
FROM snappea_schedule ORDER BY name

-- schedules.rows.EACH, PostgreSQL
SELECT name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, last_run, declared, is_added
FROM snappea_schedule ORDER BY name

-- schedules.rows.FORGET_RUNS, SQLite
DELETE FROM snappea_schedulerun WHERE schedule = ?

-- schedules.rows.FORGET_RUNS, PostgreSQL
DELETE FROM snappea_schedulerun WHERE schedule = %s

-- schedules.rows.ONE, SQLite
SELECT name, task_name, expression, timezone, args, kwargs, queue, catch_up, +next_run, +last_run, declared, +is_added
FROM snappea_schedule WHERE name = ?

-- schedules.rows.ONE, PostgreSQL
SELECT name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, last_run, declared, is_added
FROM snappea_schedule WHERE name = %s FOR UPDATE

-- schedules.rows.REMOVE, SQLite
DELETE FROM snappea_schedule WHERE name = ?

-- schedules.rows.REMOVE, PostgreSQL
DELETE FROM snappea_schedule WHERE name = %s

-- schedules.rows.WRITE, SQLite
INSERT INTO snappea_schedule (name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, declared, is_added, last_outcome, is_paused)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT (name) DO  UPDATE SET task_name = excluded.task_name, expression = excluded.expression,
    timezone = excluded.timezone, args = excluded.args, kwargs = excluded.kwargs,
    queue = excluded.queue, catch_up = excluded.catch_up, next_run = excluded.next_run,
    declared = excluded.declared, is_added = excluded.is_added

-- schedules.rows.WRITE, PostgreSQL
INSERT INTO snappea_schedule (name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, declared, is_added, last_outcome, is_paused)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, '', %s) ON CONFLICT (name) DO  UPDATE SET task_name = excluded.task_name, expression = excluded.expression,
    timezone = excluded.timezone, args = excluded.args, kwargs = excluded.kwargs,
    queue = excluded.queue, catch_up = excluded.catch_up, next_run = excluded.next_run,
    declared = excluded.declared, is_added = excluded.is_added

-- schedules.rows._ADD_RUN, SQLite
INSERT INTO snappea_schedulerun (schedule, at, task_id, outcome) VALUES (?, ?, ?, ?)

-- schedules.rows._ADD_RUN, PostgreSQL
INSERT INTO snappea_schedulerun (schedule, at, task_id, outcome) VALUES (%s, %s, %s, %s)

-- schedules.rows._INSERT, SQLite
INSERT INTO snappea_schedule (name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, declared, is_added, last_outcome, is_paused)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT (name) DO

-- schedules.rows._INSERT, PostgreSQL
INSERT INTO snappea_schedule (name, task_name, expression, timezone, args, kwargs, queue, catch_up, next_run, declared, is_added, last_outcome, is_paused)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, '', %s) ON CONFLICT (name) DO

-- schedules.rows._NOTE_LAST, SQLite
UPDATE snappea_schedule SET last_run = ?, last_task_id = ?, last_outcome = ? WHERE name = ?

-- schedules.rows._NOTE_LAST, PostgreSQL
UPDATE snappea_schedule SET last_run = %s, last_task_id = %s, last_outcome = %s WHERE name = %s

-- schedules.rows._TRIM_RUNS, SQLite
DELETE FROM snappea_schedulerun WHERE schedule = ? AND id <= (
    SELECT id FROM snappea_schedulerun WHERE schedule = ? ORDER BY id DESC LIMIT 1 OFFSET 30)

-- schedules.rows._TRIM_RUNS, PostgreSQL
DELETE FROM snappea_schedulerun WHERE schedule = %s AND id <= (
    SELECT id FROM snappea_schedulerun WHERE schedule = %s ORDER BY id DESC LIMIT 1 OFFSET 30)

-- stats._OF_TASK, SQLite
SELECT +minute, task_name, done, failed, retried + cancelled, starts, run_times, wait_times
FROM snappea_stat WHERE task_name IN (?, '') AND minute >= ?

-- stats._OF_TASK, PostgreSQL
SELECT minute, task_name, done, failed, retried + cancelled, starts, run_times, wait_times
FROM snappea_stat WHERE task_name IN (%s, '') AND minute >= %s

-- stats._SINCE, SQLite
SELECT task_name, done, failed, done + failed + retried + cancelled, expired, run_sum, run_times
FROM snappea_stat WHERE minute >= ? AND task_name <> ''

-- stats._SINCE, PostgreSQL
SELECT task_name, done, failed, done + failed + retried + cancelled, expired, run_sum, run_times
FROM snappea_stat WHERE minute >= %s AND task_name <> ''

-- testing.live.WORK, both
SELECT EXISTS (SELECT 1 FROM snappea_task WHERE status IN ('ready', 'running'))
