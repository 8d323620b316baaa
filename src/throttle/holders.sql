-- The sessions that hold the source's slots, as text. Every role sees pid, role and application of
-- other roles' sessions. The start of their transactions is visible only to members of
-- pg_read_all_stats. An advisory lock of two keys is in pg_locks as classid and objid, with
-- objsubid 2. That of a prepared transaction has no pid.
SELECT CASE
           WHEN l.pid IS NULL THEN 'the prepared transaction '
                || coalesce(quote_literal(p.gid), '(SELECT * FROM pg_prepared_xacts)')
           ELSE 'pid ' || l.pid::text || ' (role ' || coalesce(a.usename::text, 'unknown')
                || coalesce(', ' || left(nullif(a.application_name, ''), 80), '') || ')'
                || coalesce(to_char(a.xact_start AT TIME ZONE 'UTC',
                                    '" since "YYYY-MM-DD"T"HH24:MI:SS"Z"'), '')
       END AS who
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
    AND x.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = {class} AND l.objsubid = 2
  AND l.objid::bigint < {slots}
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY a.xact_start NULLS LAST, l.pid
LIMIT 3
