-- The bytes of a rollup's table with its indexes, and its rows by the statistics. No row: there is none.
SELECT pg_total_relation_size(c.oid) AS bytes, c.reltuples::float8 AS rows
FROM pg_class c WHERE c.oid = to_regclass({table})
