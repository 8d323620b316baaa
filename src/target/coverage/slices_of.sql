CREATE OR REPLACE FUNCTION tallymark.slices_of(of_rollup text, range_start timestamptz, range_end timestamptz)
RETURNS TABLE (slice_start timestamptz, slice_end timestamptz, state text, stale_since timestamptz,
    reason text, attempt bigint, rows_read bigint, replaced_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_column
DECLARE
    known tallymark.checked;
    widest interval;
    parts_from timestamptz;
    parts_until timestamptz;
BEGIN
    SELECT c.* INTO known FROM tallymark.checked c WHERE c.rollup = of_rollup;
    -- A change of the zone may add a day.
    widest := coalesce(make_interval(secs => known.slice_seconds * 2), interval '370 days')
        + interval '1 day';
    -- A coarse slice is complete only if the finer slices in it are.
    IF known.finer IS NOT NULL THEN
        SELECT min(coalesce(m.window_start, m.slice_start)), max(m.slice_end)
        INTO parts_from, parts_until
        FROM tallymark.slice m
        WHERE m.rollup = of_rollup AND m.slice_start > range_start - widest AND m.slice_start < range_end
            AND m.slice_end > range_start AND m.replaced_at IS NOT NULL;
    END IF;
    RETURN QUERY
    WITH parts AS MATERIALIZED (
        SELECT p.slice_start, p.slice_end
        FROM tallymark.slices_of(known.finer, parts_from, parts_until) p
        WHERE known.finer IS NOT NULL AND p.state IN ('stale', 'failing')
    ), replaced AS (
        SELECT m.slice_start, m.slice_end, m.definition, m.attempt, m.rows_read, m.replaced_at,
            m.kept_away, m.open_until, m.adopted_from, coalesce(m.window_start, m.slice_start) AS since
        FROM tallymark.slice m
        WHERE m.rollup = of_rollup AND m.slice_start > range_start - widest AND m.slice_start < range_end
            AND m.slice_end > range_start AND m.replaced_at IS NOT NULL
    ), raised AS (
        SELECT o.slice_start, o.slice_end, o.since, o.reason FROM tallymark.outstanding o
        WHERE o.rollup = of_rollup AND o.slice_start > range_start - widest AND o.slice_start < range_end
            AND o.slice_end > range_start AND o.cleared < o.generation
            -- A slice that goes on, without numbers, is to come.
            AND (o.slice_end <= clock_timestamp() OR EXISTS (SELECT FROM replaced m
                WHERE m.slice_start = o.slice_start))
            -- An open slice has no rows of the finer slices after it.
            AND NOT EXISTS (SELECT FROM replaced m WHERE m.slice_start = o.slice_start
                AND m.open_until <= o.changed_from)
    ), outdated AS MATERIALIZED (
        SELECT w.slice_start FROM tallymark.outdated_windows(of_rollup, range_start - widest, range_end) w
        WHERE known.window_changes IS NOT NULL
    ), judged AS (
        SELECT coalesce(m.slice_start, o.slice_start) AS first,
            coalesce(m.slice_end, o.slice_end) AS last,
            CASE WHEN m.kept_away IS NOT NULL THEN 'kept_away'
                WHEN m.adopted_from IS NOT NULL THEN 'adopted'
                WHEN coalesce(m.slice_start, o.slice_start) < known.seal_before THEN 'sealed'
                WHEN m.slice_start < known.history_from THEN 'outside'
                WHEN coalesce(m.slice_start, o.slice_start) = ANY (known.failing)
                    AND coalesce(m.replaced_at <= known.checked_at, true) THEN 'failing'
                WHEN o.since IS NOT NULL THEN 'stale'
                WHEN known.rollup IS NULL OR m.definition IS DISTINCT FROM known.definition
                    THEN 'redefined'
                WHEN EXISTS (SELECT FROM parts p
                    WHERE p.slice_start < coalesce(m.open_until, m.slice_end)
                        AND p.slice_end > m.since) THEN 'parts'
                WHEN w.slice_start IS NOT NULL THEN 'outdated'
                WHEN m.open_until IS NOT NULL THEN 'open'
                ELSE 'complete' END AS standing,
            o.since AS raised_at, o.reason AS why, m.attempt, m.rows_read, m.replaced_at,
            m.adopted_from
        FROM replaced m FULL JOIN raised o ON m.slice_start = o.slice_start
        LEFT JOIN outdated w ON w.slice_start = m.slice_start
    )
    SELECT j.first, j.last,
        CASE WHEN j.standing IN ('redefined', 'parts', 'outdated') THEN 'stale' ELSE j.standing END,
        j.raised_at,
        CASE j.standing WHEN 'redefined' THEN CASE WHEN known.rollup IS NULL
                THEN 'no tick has told how far it is' ELSE 'computed by another definition' END
            WHEN 'parts' THEN 'slices of ' || known.finer || ' are outstanding'
            WHEN 'outdated' THEN 'slices of ' || known.finer || ' have changed since'
            WHEN 'kept_away' THEN 'its rows are deleted, by keep'
            WHEN 'adopted' THEN 'its rows were taken over from ' || j.adopted_from
            WHEN 'sealed' THEN 'starts before the seal'
            WHEN 'outside' THEN 'starts before the start of the rollup'
            WHEN 'failing' THEN 'its attempts fail'
            WHEN 'open' THEN 'more slices of ' || known.finer || ' are to come'
            ELSE j.why END,
        j.attempt, j.rows_read, j.replaced_at
    FROM judged j;
END
$body$
