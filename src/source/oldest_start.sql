-- When the oldest transaction of this database began. Vacuum and replication write no counted row.
SELECT min(xact_start) AS since
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  -- Tallymark's own transactions write to rollup tables only.
  AND NOT (application_name LIKE 'tallymark %' AND usename = current_user)
  AND backend_type NOT IN ('autovacuum worker', 'autovacuum launcher', 'walsender')
