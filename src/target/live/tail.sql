CREATE FUNCTION {function}() RETURNS TABLE ({columns})
LANGUAGE plpgsql STABLE SECURITY DEFINER {settings}
AS $body$
-- The buckets after the newest slice that has numbers, until the end of the present one. The last tick
-- tells where buckets begin; where it was long ago, there are none.
#variable_conflict use_column
DECLARE
    __starts timestamptz[];
    __since timestamptz;
    __until timestamptz;
BEGIN
    SELECT c.tail INTO __starts FROM tallymark.checked c WHERE c.rollup = {rollup};
    SELECT m.slice_end INTO __since FROM tallymark.slice m
        WHERE m.rollup = {rollup} AND m.replaced_at IS NOT NULL ORDER BY m.slice_start DESC LIMIT 1;
    __since := greatest(__since, __starts[1]);
    SELECT min(s) INTO __until FROM unnest(__starts) s WHERE s > clock_timestamp();
    IF __until IS NULL OR __since >= __until THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT {results} FROM (
{select}
    ) __g;
END
$body$
