-- The columns of a table, with all properties that decide which values they hold and which of them
-- are equal.
SELECT a.attname::text AS name,
       CASE WHEN t.typname IN ('bit', 'bpchar', '_bit', '_bpchar')
            THEN format_type(a.atttypid, a.atttypmod)
            ELSE format_type(a.atttypid, NULL) END AS sql_type,
       CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation
            THEN quote_ident(n.nspname) || '.' || quote_ident(o.collname) END AS collation,
       a.attnotnull AS is_not_null,
       a.attgenerated = 's' AS is_generated,
       a.attidentity <> '' OR a.attgenerated NOT IN ('', 's') AS is_not_ours
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_collation o ON o.oid = a.attcollation
LEFT JOIN pg_namespace n ON n.oid = o.collnamespace
WHERE a.attrelid = to_regclass({relation}) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
