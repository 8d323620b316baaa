-- Sessions of others in a transaction at this moment, as any role can see them. A session is in a
-- transaction while it holds the lock of its virtual transaction.
SELECT count(DISTINCT l.pid)::float8 AS sessions
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted
  AND l.pid <> pg_backend_pid()
  AND NOT coalesce(a.usename = current_user AND a.application_name LIKE 'tallymark%', false)
