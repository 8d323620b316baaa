-- The rights that a role lacks for reading the rollup tables of these names. A schema or table that
-- is still missing counts as lacking them too. The role must exist, or the functions fail.
SELECT t.name AS table_name,
       NOT coalesce(has_schema_privilege({role}, n.oid, 'USAGE'), false) AS lacks_schema,
       NOT coalesce(has_table_privilege({role}, c.oid, 'SELECT'), false) AS lacks_table
FROM unnest({tables}::text[]) AS t (name)
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = {schema}
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
