CREATE OR REPLACE FUNCTION tallymark.key_of(dimension bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $key$
-- Bytes as they stand in the unique index of a rollup table: themselves where they are fewer than 32, else
-- their SHA-256.
SELECT CASE WHEN pg_catalog.octet_length(dimension) OPERATOR(pg_catalog.<) 32 THEN dimension
    ELSE pg_catalog.sha256(dimension) END
$key$
