CREATE OR REPLACE FUNCTION tallymark.clock_steps(seconds bigint, of_zone text, first timestamptz, last timestamptz,
    OUT starts timestamptz[], OUT is_even boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
-- The instants in a range at which steps of less than a day begin: wherever the local time of day is
-- a multiple of the step, each time that it is, and after clocks jump to or over such a time.
-- `is_even`: all steps are equally long.
DECLARE
    piece timestamptz := first;
    piece_end timestamptz;
    before timestamptz;
    middle timestamptz;
    shown bigint;
    due bigint;
    day timestamptz;
    known integer;
BEGIN
    starts := '{}';
    is_even := true;
    -- A change of the clocks lies in a day whose ends have different offsets.
    FOR day IN
        SELECT o.d FROM (
            SELECT d, shift, lead(shift) OVER (ORDER BY d) AS next
            FROM generate_series(first, last + interval '24 hours', interval '24 hours') AS d,
                LATERAL (SELECT date_part('epoch', d AT TIME ZONE of_zone) - date_part('epoch', d) AS shift) clock
        ) o WHERE o.shift <> o.next
        UNION ALL SELECT NULL
    LOOP
        before := day;
        piece_end := coalesce(day + interval '24 hours', last);
        WHILE day IS NOT NULL AND piece_end - before > interval '1 second' LOOP
            middle := before + make_interval(secs => floor(extract(epoch FROM piece_end - before) / 2));
            IF (middle AT TIME ZONE of_zone) - (middle AT TIME ZONE 'UTC')
                = (day AT TIME ZONE of_zone) - (day AT TIME ZONE 'UTC')
            THEN
                before := middle;
            ELSE
                piece_end := middle;
            END IF;
        END LOOP;
        shown := floor(date_part('epoch', piece AT TIME ZONE of_zone));
        known := cardinality(starts);
        -- The first multiple from here on, to the end of the piece.
        starts := starts || ARRAY(SELECT generate_series(
            piece + make_interval(secs => (seconds - shown % seconds) % seconds),
            piece_end - interval '1 second', make_interval(secs => seconds)));
        is_even := is_even AND coalesce(starts[known + 1] - starts[known] = make_interval(secs => seconds), true);
        EXIT WHEN day IS NULL;
        piece := piece_end;
        shown := floor(date_part('epoch', piece AT TIME ZONE of_zone));
        due := floor(date_part('epoch', before AT TIME ZONE of_zone)) + 1;
        IF shown % seconds <> 0 AND shown - shown % seconds >= due THEN
            starts := starts || piece;
            is_even := false;
        END IF;
    END LOOP;
END
$body$
