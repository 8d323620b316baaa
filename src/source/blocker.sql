-- The oldest transaction of this database whose ID is below the horizon. Transactions of other
-- databases write no counted row. Every role sees which process has which ID, but its start only
-- with pg_read_all_stats. The views show the low 32 bits of an ID. The IDs of open transactions
-- differ by less than half of those.
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
