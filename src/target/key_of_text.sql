CREATE OR REPLACE FUNCTION tallymark.key_of(dimension text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $key$
-- A text as it stands in the unique index of a rollup table: itself where it is shorter than 64 bytes, else the
-- 64 digits of the SHA-256 of its bytes, so that an index entry takes any value. No two texts have the same:
-- MD5 would not do, as who writes dimensions could write two texts of the same. A backslash is
-- doubled because decode() takes it for an escape; convert_to() depends on a setting. PostgreSQL inlines the
-- body, so every name in it has its schema.
SELECT CASE WHEN pg_catalog.octet_length(dimension) OPERATOR(pg_catalog.<) 64 THEN dimension
    ELSE pg_catalog.encode(pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(
        dimension COLLATE pg_catalog."C", pg_catalog.chr(92), pg_catalog.repeat(pg_catalog.chr(92), 2)
    ), 'escape')), 'hex') END
$key$
