-- The oldest transaction of this database whose ID is below the horizon. Those of other databases
-- write no row that is counted. Any role sees who has which ID; since when, only with
-- pg_read_all_stats. The views show the low 32 bits of an ID, and no two that are under way lie half
-- of those or more apart.
SELECT since, who FROM (
    SELECT xact_start AS since,
           format('the transaction of pid %s (%s, role %s; SELECT * FROM pg_stat_activity WHERE pid = %s)',
                  pid, coalesce(nullif(application_name, ''), 'no application_name'), usename, pid) AS who,
           ({horizon} - backend_xid::text::bigint) & 4294967295 AS distance
    FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()
  -- Tallymark's own transactions write to rollup tables only.
  AND NOT (application_name LIKE 'tallymark %' AND usename = current_user)
    UNION ALL
    SELECT prepared, format('the prepared transaction %L (SELECT * FROM pg_prepared_xacts)', gid),
           ({horizon} - transaction::text::bigint) & 4294967295
    FROM pg_prepared_xacts WHERE database = current_database()
) open
WHERE distance BETWEEN 1 AND 2147483647
ORDER BY distance DESC
LIMIT 1
