-- Sessions of others in a transaction at this moment, as any role can see them; the next ID of a
-- transaction that writes; and all sessions of others. A session is in a transaction while it holds
-- the lock of its virtual transaction.
WITH own AS (
    SELECT a.pid FROM pg_stat_get_activity(NULL) a
    WHERE a.usesysid = (SELECT oid FROM pg_roles WHERE rolname = current_user)
      AND a.application_name LIKE 'tallymark%'
)
SELECT count(DISTINCT l.pid)::float8 AS sessions,
       pg_snapshot_xmax(pg_current_snapshot())::text::float8 AS next_xid,
       (SELECT sum(numbackends) FROM pg_stat_database)::float8
           - (SELECT count(*) FROM own) AS connected
FROM pg_locks l
WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted
  AND l.pid <> pg_backend_pid() AND NOT EXISTS (SELECT FROM own WHERE own.pid = l.pid)
