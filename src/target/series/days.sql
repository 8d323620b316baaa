CREATE OR REPLACE FUNCTION tallymark.days_begin(days date[], of_zone text) RETURNS timestamptz[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
-- The instants at which these days begin. A day that the zone skips begins with the day after it.
SELECT array_agg(CASE WHEN d.local = d.midnight
        AND ((d.plain - interval '1 second') AT TIME ZONE of_zone) = d.midnight - interval '1 second'
    THEN d.plain ELSE tallymark.reached(d.midnight, of_zone) END ORDER BY d.midnight)
FROM (
    SELECT m.midnight, m.plain, m.plain AT TIME ZONE of_zone AS local
    FROM (SELECT day::timestamp AS midnight, day::timestamp AT TIME ZONE of_zone AS plain
        FROM unnest(days) AS day) m
) d
$body$
