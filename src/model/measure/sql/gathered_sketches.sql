CREATE OR REPLACE FUNCTION tallymark.gathered_sketches(state bytea[], sketch bytea) RETURNS bytea[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
-- The step of merge_sets(bytea). A merge costs the same for two sketches as for many, so they are gathered first, up to
-- 64 of them: a megabyte.
BEGIN
    IF sketch IS NULL THEN
        RETURN state;
    ELSIF pg_catalog.cardinality(state) < 64 THEN
        RETURN state || sketch;
    END IF;
    RETURN ARRAY[tallymark.merged_sketches(state || sketch)];
END
$body$
