-- The sessions that hold, or wait for, the locks that a statement of Tallymark did not get, as
-- text. Every role sees all locks, and pid, role and application of other sessions. Only members of
-- pg_read_all_stats see their start. A lock of a prepared transaction has no pid. Tables that the
-- statement names come first, because it does not name partitions or the tables of views. A row
-- lock shows only as a lock on its table, so these sessions are listed if no table lock is found.
WITH found AS (
    SELECT l.pid, l.granted, l.mode, p.gid, a.xact_start,
           CASE WHEN l.pid IS NOT NULL
                THEN 'pid ' || l.pid::text || ' (role ' || coalesce(a.usename::text, 'unknown')
                     || coalesce(', ' || left(nullif(a.application_name, ''), 80), '') || ')'
                     || coalesce(to_char(a.xact_start AT TIME ZONE 'UTC',
                                         '" since "YYYY-MM-DD"T"HH24:MI:SS"Z"'), '')
                ELSE 'the prepared transaction ' || coalesce(quote_literal(p.gid), '(SELECT * FROM pg_prepared_xacts)')
           END AS who,
           n.nspname || '.' || c.relname AS relation,
           l.mode = ANY ({strong}::text[]) AS is_strong,
           strpos(s.text, quote_ident(c.relname)) > 0 OR strpos(s.text, '"' || c.relname || '"') > 0 AS is_named
    FROM (SELECT {statement}::text AS text) AS s
    CROSS JOIN pg_locks l
    JOIN pg_class c ON c.oid = l.relation
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    -- Each transaction that writes holds a lock on its own ID.
    LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
        AND x.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
    WHERE l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
)
SELECT relation, who, is_strong, granted,
       CASE WHEN NOT granted THEN array_to_string(pg_blocking_pids(pid), ', ') END AS behind
FROM found
WHERE (is_strong AND (is_named OR NOT EXISTS (SELECT FROM found WHERE is_strong AND is_named)))
   OR ({rows} AND is_named AND mode IN ('RowShareLock', 'RowExclusiveLock')
       AND NOT EXISTS (SELECT FROM found WHERE is_strong))
ORDER BY granted DESC, xact_start NULLS LAST, pid
LIMIT 3
