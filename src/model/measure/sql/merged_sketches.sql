CREATE OR REPLACE FUNCTION tallymark.merged_sketches(sketches bytea[]) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $body$
-- The union of sketches of distinct values: the greatest rank of each register. Up to 5,461 registers in use take 3 bytes
-- each, of 14 bits for the register and 6 for its rank. Otherwise each register takes a byte.
DECLARE
    entries integer[];
BEGIN
    entries := ARRAY(
        SELECT pg_catalog.max(e) FROM pg_catalog.unnest(sketches) AS sketch, LATERAL (
            SELECT (pg_catalog.get_byte(sketch, 3 * i) << 16) | (pg_catalog.get_byte(sketch, 3 * i + 1) << 8)
                | pg_catalog.get_byte(sketch, 3 * i + 2)
            FROM pg_catalog.generate_series(0, CASE WHEN pg_catalog.length(sketch) < 16384
                THEN pg_catalog.length(sketch) / 3 - 1 END) AS i
            UNION ALL
            SELECT (i << 6) | pg_catalog.get_byte(sketch, i)
            FROM pg_catalog.generate_series(0, CASE WHEN pg_catalog.length(sketch) = 16384 THEN 16383 END) AS i
            WHERE pg_catalog.get_byte(sketch, i) > 0
        ) AS used (e) GROUP BY e >> 6 ORDER BY 1
    );
    IF pg_catalog.cardinality(entries) <= 5461 THEN
        RETURN (SELECT coalesce(pg_catalog.string_agg(pg_catalog.substr(pg_catalog.int4send(e), 2), ''::bytea ORDER BY e), '')
                FROM pg_catalog.unnest(entries) AS e);
    END IF;
    RETURN (SELECT pg_catalog.string_agg(pg_catalog.set_byte('\x00'::bytea, 0, coalesce(e & 63, 0)), ''::bytea ORDER BY i)
            FROM pg_catalog.generate_series(0, 16383) AS i LEFT JOIN pg_catalog.unnest(entries) AS e ON (e >> 6) = i);
END
$body$
