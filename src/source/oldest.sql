-- The oldest transaction of this database that began before an instant. Vacuum and replication
-- write no counted row. Prepared transactions are covered by the horizon, which is taken after
-- this.
SELECT xact_start AS since,
       format('the transaction of pid %s (%s, role %s; SELECT * FROM pg_stat_activity WHERE pid = %s)',
              pid, coalesce(nullif(application_name, ''), 'no application_name'), usename, pid) AS who
FROM pg_stat_activity
WHERE xact_start < {before} AND datname = current_database() AND pid <> pg_backend_pid()
  -- Tallymark's own transactions write to rollup tables only.
  AND NOT (application_name LIKE 'tallymark %' AND usename = current_user)
  AND backend_type NOT IN ('autovacuum worker', 'autovacuum launcher', 'walsender')
ORDER BY xact_start
LIMIT 1
