CREATE OR REPLACE FUNCTION tallymark.outdated_windows(of_rollup text, range_start timestamptz, range_end timestamptz)
RETURNS TABLE (slice_start timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
-- A window holds every change if its finer slices have changed as often as before it was read. The
-- running sum of their changes at both ends of a window tells how often that is.
WITH own AS MATERIALIZED (
    SELECT m.slice_start, m.slice_end, m.window_start, m.window_generation FROM tallymark.slice m
    WHERE m.rollup = of_rollup AND m.slice_start >= range_start AND m.slice_start < range_end
        AND m.replaced_at IS NOT NULL
), finer AS MATERIALIZED (
    SELECT f.slice_start, sum(f.changes) OVER (ORDER BY f.slice_start) AS changes
    FROM tallymark.slice f
    WHERE f.rollup = (SELECT c.finer FROM tallymark.checked c WHERE c.rollup = of_rollup)
        AND f.slice_start >= (SELECT min(own.window_start) FROM own)
        AND f.slice_start < (SELECT max(own.slice_end) FROM own)
)
SELECT w.slice_start
FROM (
    SELECT own.slice_start, own.window_generation,
        width_bucket(own.window_start - interval '1 microsecond',
            (SELECT array_agg(finer.slice_start ORDER BY finer.slice_start) FROM finer)) AS before,
        width_bucket(own.slice_end - interval '1 microsecond',
            (SELECT array_agg(finer.slice_start ORDER BY finer.slice_start) FROM finer)) AS until
    FROM own
) w
LEFT JOIN tallymark.outstanding o ON o.rollup = of_rollup AND o.slice_start = w.slice_start
WHERE w.window_generation IS DISTINCT FROM coalesce(o.generation, 0)
    + coalesce((SELECT array_agg(finer.changes ORDER BY finer.slice_start) FROM finer)[w.until], 0)
    - coalesce((SELECT array_agg(finer.changes ORDER BY finer.slice_start) FROM finer)[w.before], 0)
$body$
