CREATE OR REPLACE FUNCTION tallymark.unique_count(set anyarray) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $body$
-- The number of members of an exact set.
SELECT pg_catalog.cardinality(set)::pg_catalog.int8
$body$
