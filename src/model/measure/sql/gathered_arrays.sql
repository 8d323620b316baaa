CREATE OR REPLACE FUNCTION tallymark.gathered_sets(state anyarray, set anyarray) RETURNS anyarray
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
-- The step of merge_sets(anyarray). Members are gathered first, and sorted once there are a million of them. In SQL, as
-- PL/pgSQL would take the gathered array apart at each step.
SELECT CASE WHEN set IS NULL THEN state
    WHEN pg_catalog.cardinality(state) + pg_catalog.cardinality(set) <= 1000000 THEN state || set
    ELSE tallymark.merged_sets(state || set) END
$body$
