-- The columns of the given tables, with what their indexes and statistics say. Statistics are those of
-- the whole table, else of its largest partition. They are read once, as PostgreSQL would otherwise go
-- through all of them for each column.
WITH wanted (oid, largest) AS (
    SELECT v.oid::oid, v.largest::oid FROM (VALUES {tables}) AS v (oid, largest)
), speaking AS MATERIALIZED (
    SELECT w.oid AS root, c.oid = w.oid AS is_whole, n.nspname, c.relname, c.reltuples
    FROM wanted w
    JOIN pg_catalog.pg_class c ON c.oid IN (w.oid, w.largest)
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
), said AS MATERIALIZED (
    SELECT s.schemaname, s.tablename, s.attname, s.inherited, s.n_distinct
    FROM pg_catalog.pg_stats s
    WHERE (s.schemaname, s.tablename) IN (SELECT nspname, relname FROM speaking)
), counted AS MATERIALIZED (
    SELECT DISTINCT ON (p.root, s.attname) p.root, s.attname,
           CASE WHEN s.n_distinct >= 0 THEN s.n_distinct
                ELSE -s.n_distinct * greatest(p.reltuples, 0) END::float8 AS distinct_values
    FROM speaking p JOIN said s ON s.schemaname = p.nspname AND s.tablename = p.relname
    ORDER BY p.root, s.attname, p.is_whole DESC, s.inherited DESC
)
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
       -- A B-tree before a BRIN.
       (SELECT max(m.amname)::text FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
        JOIN pg_catalog.pg_am m ON m.oid = x.relam AND m.amname IN ('btree', 'brin')
        WHERE i.indrelid = a.attrelid AND i.indisvalid AND i.indpred IS NULL
          AND i.indkey[0] = a.attnum) AS index,
       s.distinct_values
FROM wanted
JOIN pg_catalog.pg_attribute a ON a.attrelid = wanted.oid
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
LEFT JOIN counted s ON s.root = a.attrelid AND s.attname = a.attname
WHERE a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
