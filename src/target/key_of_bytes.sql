CREATE OR REPLACE FUNCTION tallymark.key_of(dimension bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $key$
-- The form of a byte string in the unique index of a rollup table: itself if it is shorter than 32
-- bytes, else its SHA-256.
SELECT CASE WHEN pg_catalog.octet_length(dimension) OPERATOR(pg_catalog.<) 32 THEN dimension
    ELSE pg_catalog.sha256(dimension) END
$key$
