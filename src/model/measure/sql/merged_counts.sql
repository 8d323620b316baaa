CREATE OR REPLACE FUNCTION tallymark.merged_counts(one bigint[], other bigint[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $body$
-- The sum of two sketches of percentiles: the counts of each bucket added up, in ascending order.
BEGIN
    RETURN ARRAY(
        SELECT (e >> 44) * 17592186044416 + pg_catalog.sum(e & 17592186044415)::bigint
        FROM (SELECT e FROM pg_catalog.unnest(one) AS e UNION ALL SELECT e FROM pg_catalog.unnest(other) AS e) AS both_sketches
        GROUP BY e >> 44 ORDER BY e >> 44
    );
END
$body$
