CREATE OR REPLACE FUNCTION tallymark.standing_of(of_rollup text, made_for text, starts timestamptz[],
    OUT before integer, OUT standing smallint[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
-- How far each step is computed: 0 for nothing, 1 for something, 2 where it is complete. The array
-- begins after the first `before` steps, and steps beyond it are complete.
BEGIN
    WITH parts AS MATERIALIZED (
        SELECT p.first, p.last, p.is_computed
        FROM tallymark.incomplete(of_rollup, made_for, starts[1], starts[array_upper(starts, 1)]) p
    ), touched AS MATERIALIZED (
        SELECT t.place, coalesce(sum(least(parts.last, starts[t.place + 1]) - greatest(parts.first, starts[t.place]))
            FILTER (WHERE NOT parts.is_computed) >= starts[t.place + 1] - starts[t.place], false) AS is_empty
        FROM parts, LATERAL generate_series(greatest(width_bucket(parts.first, starts), 1),
            least(width_bucket(parts.last - interval '1 microsecond', starts), array_upper(starts, 1) - 1)) AS t (place)
        GROUP BY t.place
    )
    SELECT s.first - 1, ARRAY(SELECT CASE WHEN t.place IS NULL THEN 2 WHEN t.is_empty THEN 0 ELSE 1 END::smallint
        FROM generate_series(s.first, s.last) AS p LEFT JOIN touched t ON t.place = p ORDER BY p)
    INTO before, standing
    FROM (SELECT min(place) AS first, max(place) AS last FROM touched) s;
END
$body$
