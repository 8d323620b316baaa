-- The bytes of a rollup's table with its partitions and indexes, and its rows by the statistics. No
-- row: there is no table.
SELECT sum(pg_total_relation_size(c.oid))::bigint AS bytes,
       sum(greatest(c.reltuples, 0) * (c.relkind <> 'p')::int)::float8 AS rows
FROM pg_class c
WHERE c.oid = to_regclass({table})
   OR c.oid IN (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = to_regclass({table}))
HAVING count(*) > 0
