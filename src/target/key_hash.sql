CREATE OR REPLACE FUNCTION tallymark.key_hash("row" record) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $hash$
-- 128 bits of the dimensions of a group: what the unique index of a rollup table holds in their place, so that
-- neither their number nor their length has a limit, and NULL is a value like any other. Two groups
-- have the same hash only if their values are the same byte for byte. PostgreSQL's own hash functions
-- would not do: 1::bigint and 4294967296 have the same hash under every seed, {1,2} and {{1,2}} too.
BEGIN
    RETURN pg_catalog.substr(pg_catalog.sha256(pg_catalog.record_send("row")), 1, 16);
END
$hash$
