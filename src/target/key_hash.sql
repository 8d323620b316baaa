CREATE OR REPLACE FUNCTION tallymark.key_hash("row" record) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $hash$
-- 128 bits of those dimensions of a group that cannot stand in the unique index of a rollup table by themselves:
-- arrays, documents, ranges, rows, and more dimensions than an index has columns. Two have the same hash
-- only if their values are the same byte for byte. PostgreSQL's own hash functions would not do:
-- 1::bigint and 4294967296 have the same hash under every seed, {1,2} and {{1,2}} too.
BEGIN
    RETURN pg_catalog.substr(pg_catalog.sha256(pg_catalog.record_send("row")), 1, 16);
END
$hash$
