CREATE OR REPLACE FUNCTION tallymark.reached(wanted timestamp, of_zone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
-- The first instant from which on the clocks of the zone always show this local time or later. It is
-- the rule by which days of rollups begin. PostgreSQL's AT TIME ZONE differs where clocks skip the
-- time or show it twice.
DECLARE
    plain CONSTANT timestamptz := wanted AT TIME ZONE 'UTC';
    -- No zone changes its clocks twice within this time.
    before timestamptz := plain - interval '16 hours';
    changed timestamptz := plain + interval '16 hours';
    middle timestamptz;
    offset_before CONSTANT interval := (before AT TIME ZONE of_zone) - (before AT TIME ZONE 'UTC');
    offset_after CONSTANT interval := (changed AT TIME ZONE of_zone) - (changed AT TIME ZONE 'UTC');
    first CONSTANT timestamptz := plain - offset_before;
    second CONSTANT timestamptz := plain - offset_after;
BEGIN
    IF offset_before = offset_after THEN
        RETURN first;
    END IF;
    WHILE changed - before > interval '1 second' LOOP
        middle := before + make_interval(secs => floor(extract(epoch FROM changed - before) / 2));
        IF (middle AT TIME ZONE of_zone) - (middle AT TIME ZONE 'UTC') = offset_before THEN
            before := middle;
        ELSE
            changed := middle;
        END IF;
    END LOOP;
    IF first < changed AND second >= changed THEN
        RETURN CASE WHEN ((second - interval '1 second') AT TIME ZONE of_zone) < wanted
            THEN second ELSE first END;
    ELSIF first < changed THEN
        RETURN first;
    END IF;
    RETURN greatest(second, changed);
END
$body$
