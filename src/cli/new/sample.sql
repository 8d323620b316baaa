-- The first and the last value of a column in the sample of the newest ANALYZE, over the table and its
-- partitions.
WITH RECURSIVE tree AS (
    SELECT to_regclass({table})::oid AS oid
    UNION ALL
    SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
)
SELECT min({value}) AS first, max({value}) AS last
FROM tree
JOIN pg_catalog.pg_class c ON c.oid = tree.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_stats s
  ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = {column},
LATERAL (
    SELECT bounds[1] AS bound FROM (SELECT s.histogram_bounds::text::text[]) AS h (bounds)
    UNION ALL
    SELECT bounds[array_upper(bounds, 1)] FROM (SELECT s.histogram_bounds::text::text[]) AS h (bounds)
    UNION ALL
    SELECT unnest(s.most_common_vals::text::text[])
) AS b
