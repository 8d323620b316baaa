CREATE OR REPLACE FUNCTION tallymark.key_hash("row" record) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $hash$
-- A hash of 128 bits over those dimensions of a group that are too wide for the unique index of a
-- rollup table (arrays, documents, ranges, rows), or that exceed its number of columns. Two groups
-- have the same hash only if their values are the same byte for byte. PostgreSQL's own hash
-- functions are too weak: 1::bigint and 4294967296 have the same hash under every seed, and so have
-- {1,2} and {{1,2}}.
BEGIN
    RETURN pg_catalog.substr(pg_catalog.sha256(pg_catalog.record_send("row")), 1, 16);
END
$hash$
