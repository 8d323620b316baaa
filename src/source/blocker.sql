-- The oldest transaction whose ID lies before the horizon. Any role sees IDs; who began when only
-- with pg_read_all_stats. IDs in the views have 32 bits: compared by their distance.
SELECT since, who FROM (
    SELECT xact_start AS since,
           format('the transaction of pid %s (%s, role %s; SELECT * FROM pg_stat_activity WHERE pid = %s)',
                  pid, coalesce(nullif(application_name, ''), 'no application_name'), usename, pid) AS who,
           age(backend_xid) AS age
    FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()
    UNION ALL
    SELECT prepared, format('the prepared transaction %L (SELECT * FROM pg_prepared_xacts)', gid),
           age(transaction)
    FROM pg_prepared_xacts WHERE database = current_database()
) open
WHERE age >= ((pg_snapshot_xmax(pg_current_snapshot())::text::bigint - {horizon}) % 4294967296)
ORDER BY age DESC
LIMIT 1
