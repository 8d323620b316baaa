-- The partitions of a rollup's table in their order, and the instants between which each holds rows. A
-- default partition has none.
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
       (CASE b.bounds[1] WHEN 'MINVALUE' THEN '0001-01-01' ELSE translate(b.bounds[1], '''', '') END)
           {as_instant} AS first,
       (CASE b.bounds[2] WHEN 'MAXVALUE' THEN '9999-12-31' ELSE translate(b.bounds[2], '''', '') END)
           {as_instant} AS last
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \((.*)\) TO \((.*)\)') AS b (bounds)
WHERE i.inhparent = to_regclass({relation})
ORDER BY first
