-- The tables that an application may want to count, those with a time first and of them the largest, with
-- their partitions' sizes. The number is bounded, as a database may hold a table for each customer.
WITH RECURSIVE candidate AS (
    SELECT c.oid, n.oid AS schema_oid, n.nspname::text AS schema, c.relname::text AS name,
           c.relkind, a.has_time
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
    LATERAL (SELECT EXISTS (
        SELECT FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0
          AND (a.atttypid = ANY ('{{timestamptz, timestamp, date}}'::regtype[]::oid[])
               OR a.atttypid = ANY ('{{int4, int8}}'::regtype[]::oid[])
                  AND a.attname ~ ('(^|_)(at|date|epoch|millis|ms|on|secs?|time|timestamp|ts)$'
                                   '|[a-z](At|Date|Ms|On|Time|Timestamp)$'))
    ) AS has_time) a
    WHERE {condition}
    -- A partitioned table has no pages of its own.
    ORDER BY a.has_time DESC, c.relkind = 'p' DESC, c.relpages DESC, c.oid
    LIMIT 2000
), tree AS (
    SELECT oid AS root, oid FROM candidate
    UNION ALL
    SELECT tree.root, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
), whole AS (
    SELECT t.root, sum(pg_relation_size(p.oid)) FILTER (WHERE p.relkind IN ('r', 'm')) AS bytes,
           sum(p.reltuples) FILTER (WHERE p.relkind IN ('r', 'm') AND p.reltuples > 0) AS rows,
           -- The partition whose statistics speak for the table where it has none of its own.
           (array_agg(p.oid ORDER BY p.relpages DESC, p.oid))[1] AS largest
    FROM tree t JOIN pg_catalog.pg_class p ON p.oid = t.oid
    GROUP BY t.root
)
SELECT c.oid::bigint AS oid, c.schema, c.name,
       coalesce(w.bytes, 0)::bigint AS bytes,
       w.rows::float8 AS rows,
       w.largest::bigint AS largest,
       coalesce(has_schema_privilege(c.schema_oid, 'USAGE')
                AND has_any_column_privilege(c.oid, 'SELECT'), false) AS is_readable,
       coalesce(row_security_active(c.oid), false) AS is_filtered,
       -- A rollup's table, where Tallymark is installed.
       to_regnamespace('tallymark') IS NOT NULL AND EXISTS (
           SELECT FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum = 1 AND a.attname = 'bucket'
             AND a.atttypid = 'timestamptz'::regtype) AS is_rollup,
       c.relkind = 'v' AS is_view
FROM candidate c JOIN whole w ON w.root = c.oid
ORDER BY c.has_time DESC, w.bytes DESC NULLS LAST, c.schema, c.name
LIMIT 200
