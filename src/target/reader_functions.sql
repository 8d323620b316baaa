-- The functions that a role needs for the series of these rollups and may not execute: those of the
-- series, and those with which readers read and merge measures. The role must exist.
SELECT p.oid::regprocedure::text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE (n.nspname = 'tallymark'
       OR n.nspname = {schema} AND p.proname IN (SELECT name || '_series' FROM unnest({tables}::text[]) AS own (name)))
    AND NOT has_function_privilege({role}, p.oid, 'EXECUTE')
ORDER BY 1
