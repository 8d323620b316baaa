-- The columns of the given tables, with what their indexes and statistics say. Statistics are those of
-- the whole table, else of its largest partition.
SELECT a.attrelid::bigint AS oid,
       a.attname::text AS name,
       -- The base type of a domain.
       b.typname::text AS type,
       b.typtype = 'e' AS is_enum,
       b.typnamespace = 'pg_catalog'::regnamespace OR b.typtype = 'e' AS is_known,
       coalesce(o.collisdeterministic, true) AS is_deterministic,
       coalesce(has_column_privilege(a.attrelid, a.attnum, 'SELECT'), false) AS is_readable,
       EXISTS (SELECT FROM pg_catalog.pg_index i
               WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indnkeyatts = 1
                 AND i.indkey[0] = a.attnum) AS is_unique,
       EXISTS (SELECT FROM pg_catalog.pg_constraint k
               WHERE k.conrelid = a.attrelid AND k.contype = 'f' AND a.attnum = ANY (k.conkey))
           AS is_reference,
       (SELECT min(m.amname)::text FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
        JOIN pg_catalog.pg_am m ON m.oid = x.relam AND m.amname IN ('btree', 'brin')
        WHERE i.indrelid = a.attrelid AND i.indisvalid AND i.indpred IS NULL
          AND i.indkey[0] = a.attnum) AS index,
       CASE WHEN s.n_distinct >= 0 THEN s.n_distinct
            ELSE -s.n_distinct * greatest(s.reltuples, 0) END::float8 AS distinct_values
FROM (VALUES {tables}) AS wanted (oid, largest)
JOIN pg_catalog.pg_attribute a ON a.attrelid = wanted.oid::oid
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
LEFT JOIN LATERAL (
    SELECT s.n_distinct, c.reltuples
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_stats s
      ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
    WHERE c.oid IN (wanted.oid::oid, wanted.largest::oid)
    ORDER BY c.oid = wanted.oid::oid DESC, s.inherited DESC
    LIMIT 1
) s ON true
WHERE a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
