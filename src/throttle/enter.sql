-- The governor's query in the transaction that will read a chunk. It takes a slot and reads the
-- configured signals. A slot is an advisory lock of the transaction, so that it is free again when
-- the transaction has ended, in any way. The tries stop at the first free slot.
SELECT (SELECT slot
        FROM (SELECT (k + {first}) % {slots} AS slot FROM generate_series(0, {slots} - 1) AS k) AS s
        WHERE pg_try_advisory_xact_lock({class}, slot) LIMIT 1) AS slot,
       current_user::text AS role,
       pg_has_role(current_user, 'pg_read_all_stats', 'usage') AS sees_all,
       extract(epoch FROM clock_timestamp())::float8 AS now,
       {active}::float8 AS active,
       {waiting}::float8 AS waiting,
       {transactions}::float8 AS transactions,
       {blocks}::float8 AS blocks,
       {replica_lag_ms}::float8 AS replica_lag_ms
