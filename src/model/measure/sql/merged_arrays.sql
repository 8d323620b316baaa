CREATE OR REPLACE FUNCTION tallymark.merged_sets(members anyarray) RETURNS anyarray
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $body$
-- The set of these members, in ascending order. Equal members of exact sets have one form.
BEGIN
    RETURN ARRAY(SELECT DISTINCT m FROM pg_catalog.unnest(members) AS m ORDER BY m);
END
$body$
