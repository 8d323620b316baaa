CREATE OR REPLACE FUNCTION tallymark.inside_bucket(instants timestamptz[], bucket interval, of_zone text, week_start integer)
RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
-- The first of these instants at which no bucket of the rollup begins. NULL: all are starts.
DECLARE
    wide_months CONSTANT integer := extract(year FROM bucket) * 12 + extract(month FROM bucket);
    seconds CONSTANT bigint := extract(epoch FROM bucket);
BEGIN
    IF bucket < interval '1 day' THEN
        -- Or the clocks have just jumped to or over the start of one.
        RETURN (SELECT min(at) FROM unnest(instants) AS at,
                LATERAL (SELECT date_part('epoch', at AT TIME ZONE of_zone)::bigint AS shown,
                    date_part('epoch', (at - interval '1 second') AT TIME ZONE of_zone)::bigint + 1 AS due) clock
            WHERE shown % seconds <> 0 AND shown - shown % seconds < due);
    END IF;
    RETURN (SELECT min(at) FROM unnest(instants) AS at, LATERAL (SELECT (at AT TIME ZONE of_zone)::date AS day) local
        WHERE (tallymark.days_begin(ARRAY[day], of_zone))[1] <> at
            OR bucket = interval '7 days' AND wide_months = 0
                AND (extract(isodow FROM day)::integer + 6 - week_start) % 7 <> 0
            OR wide_months > 0 AND (extract(day FROM day) <> 1
                OR (extract(month FROM day)::integer - 1) % wide_months <> 0));
END
$body$
