CREATE OR REPLACE FUNCTION tallymark.merged_sets(one anyarray, other anyarray) RETURNS anyarray
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $body$
-- The union of two exact sets, in ascending order. Equal members of a set have one form.
BEGIN
    RETURN ARRAY(
        SELECT m FROM pg_catalog.unnest(one) AS m UNION SELECT m FROM pg_catalog.unnest(other) AS m ORDER BY 1
    );
END
$body$
