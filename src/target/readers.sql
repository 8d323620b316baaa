-- The rights that a role lacks for reading the rollup tables of these names, and the views for
-- readers. A schema or table that
-- is still missing counts as lacking them too. The role must exist, or the functions fail.
SELECT t.schema AS schema_name, t.name AS table_name,
       NOT coalesce(has_schema_privilege({role}, n.oid, 'USAGE'), false) AS lacks_schema,
       NOT coalesce(has_table_privilege({role}, c.oid, 'SELECT'), false) AS lacks_table
FROM (SELECT {schema} AS schema, name FROM unnest({tables}::text[]) AS own (name)
      UNION ALL VALUES ('tallymark', 'coverage'), ('tallymark', 'slice_state')) AS t
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
