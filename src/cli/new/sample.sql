-- The first and the last value of a column in the sample of the newest ANALYZE, over the table and its
-- partitions.
WITH RECURSIVE tree AS (
    SELECT to_regclass({table})::oid AS oid
    UNION ALL
    SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
), part AS MATERIALIZED (
    SELECT n.nspname, c.relname
    FROM tree
    JOIN pg_catalog.pg_class c ON c.oid = tree.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
), said AS MATERIALIZED (
    SELECT s.histogram_bounds::text::text[] AS bounds, s.most_common_vals::text::text[] AS common
    FROM pg_catalog.pg_stats s
    WHERE s.attname = {column} AND (s.schemaname, s.tablename) IN (SELECT nspname, relname FROM part)
), bound (bound) AS (
    SELECT bounds[1] FROM said
    UNION ALL
    SELECT bounds[array_upper(bounds, 1)] FROM said
    UNION ALL
    SELECT unnest(common) FROM said
)
SELECT min({value}) AS first, max({value}) AS last FROM bound
