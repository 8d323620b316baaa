-- Catalogue data for the plan guard about the tables and indexes in a plan.
SELECT n.nspname AS schema,
       c.relname AS name,
       format('%I.%I', n.nspname, c.relname) AS shown,
       CASE WHEN c.relispartition AND c.relkind = 'r' THEN (
           SELECT format('%I.%I', rn.nspname, r.relname)
           FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace
           WHERE r.oid = pg_partition_root(c.oid)
       ) END AS root,
       -- The table may have grown since the last ANALYZE. The planner scales in the same way.
       CASE WHEN c.reltuples > 0 AND c.relpages > 0
            THEN c.reltuples::float8 * pg_relation_size(c.oid)
                 / current_setting('block_size')::float8 / c.relpages
       END AS rows,
       pg_relation_size(c.oid) AS bytes,
       pg_relation_size(c.oid)::float8 / current_setting('block_size')::float8 AS blocks,
       {correlation}::float8 AS correlation,
       a.amname::text AS method,
       ARRAY(SELECT pg_get_indexdef(c.oid, k, true) FROM generate_series(1, i.indnkeyatts) AS k)
           AS keys
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_am a ON a.oid = c.relam
LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE (n.nspname::text, c.relname::text) IN ({names})
