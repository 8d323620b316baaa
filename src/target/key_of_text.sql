CREATE OR REPLACE FUNCTION tallymark.key_of(dimension text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $key$
-- The form of a text in the unique index of a rollup table: itself if it is shorter than 64 bytes,
-- else the 64 digits of the SHA-256 of its bytes, so that an index entry takes any value. Different
-- texts have different forms. MD5 would be too weak, as a user who writes dimensions could
-- construct two texts with the same hash. A backslash is doubled because decode() treats it as an
-- escape. convert_to() is avoided because it depends on a setting. PostgreSQL inlines the body, so
-- every name in it has its schema.
SELECT CASE WHEN pg_catalog.octet_length(dimension) OPERATOR(pg_catalog.<) 64 THEN dimension
    ELSE pg_catalog.encode(pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(
        dimension COLLATE pg_catalog."C", pg_catalog.chr(92), pg_catalog.repeat(pg_catalog.chr(92), 2)
    ), 'escape')), 'hex') END
$key$
