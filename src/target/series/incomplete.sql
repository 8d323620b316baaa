CREATE OR REPLACE FUNCTION tallymark.incomplete(of_rollup text, made_for text, range_start timestamptz, range_end timestamptz)
RETURNS TABLE (first timestamptz, last timestamptz, is_computed boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
-- The parts of a range that are not complete, and whether they have numbers all the same. Most slices
-- are complete, and one look at their markers tells: no part between them is missing, all have the
-- present definition, and nothing is outstanding. Only the others are looked at one by one.
#variable_conflict use_column
DECLARE
    known tallymark.checked;
    part tallymark.checked;
    widest interval;
    markers_from timestamptz;
    markers_until timestamptz;
    length interval;
    slices bigint;
    plain bigint;
    doubtful_from timestamptz;
    doubtful_until timestamptz;
    found_from timestamptz;
    found_until timestamptz;
    finer text;
    level integer := 0;
BEGIN
    SELECT c.* INTO known FROM tallymark.checked c WHERE c.rollup = of_rollup;
    IF left(known.definition, 16) <> made_for THEN
        RAISE EXCEPTION 'the definition of % has changed since its series was made', of_rollup
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'run `tallymark init`';
    END IF;
    widest := coalesce(make_interval(secs => known.slice_seconds * 2), interval '370 days')
        + interval '1 day';
    SELECT m.slice_start INTO markers_from FROM tallymark.slice m
        WHERE m.rollup = of_rollup AND m.slice_start > range_start - widest AND m.slice_start < range_end
            AND m.slice_end > range_start AND m.replaced_at IS NOT NULL
        ORDER BY m.slice_start LIMIT 1;
    SELECT m.slice_end INTO markers_until FROM tallymark.slice m
        WHERE m.rollup = of_rollup AND m.slice_start > range_start - widest AND m.slice_start < range_end
            AND m.slice_end > range_start AND m.replaced_at IS NOT NULL
        ORDER BY m.slice_start DESC LIMIT 1;
    length := markers_until - markers_from;
    SELECT count(*) INTO plain FROM tallymark.slice m
        WHERE m.rollup = of_rollup AND m.slice_start >= markers_from AND m.slice_start < range_end
            AND m.slice_end > range_start AND m.replaced_at IS NOT NULL AND m.kept_away IS NULL AND m.open_until IS NULL
            AND m.slice_start >= known.history_from AND m.definition = known.definition;
    slices := plain;
    -- Where as many slices of that length fill the time, all are there. Clocks change by less than a
    -- slice, but months differ by more.
    IF (known.slice_seconds < 28 * 86400 AND plain * known.slice_seconds = extract(epoch FROM length)) IS NOT TRUE THEN
        SELECT min(m.slice_start), max(m.slice_end), sum(m.slice_end - m.slice_start), count(*)
            INTO markers_from, markers_until, length, slices
            FROM tallymark.slice m
            WHERE m.rollup = of_rollup AND m.slice_start > range_start - widest AND m.slice_start < range_end
                AND m.slice_end > range_start AND m.replaced_at IS NOT NULL;
    END IF;
    IF plain < slices THEN
        SELECT min(m.slice_start), max(m.slice_end) INTO doubtful_from, doubtful_until
        FROM tallymark.slice m
        WHERE m.rollup = of_rollup AND m.slice_start > range_start - widest AND m.slice_start < range_end
            AND m.slice_end > range_start AND m.replaced_at IS NOT NULL
            AND (m.kept_away IS NULL AND m.open_until IS NULL
                AND m.slice_start >= known.history_from AND m.definition = known.definition) IS NOT TRUE;
    END IF;
    -- What is outstanding of the rollup, and of those that it is computed from.
    part := known;
    part.rollup := of_rollup;
    WHILE part.rollup IS NOT NULL AND level < 100 LOOP
        SELECT min(d.slice_start), max(d.slice_end) INTO found_from, found_until FROM (
            SELECT m.slice_start, m.slice_end FROM tallymark.slice m
            WHERE level > 0 AND m.rollup = part.rollup AND m.slice_start > range_start - widest
                AND m.slice_start < range_end AND m.slice_end > range_start AND m.replaced_at IS NOT NULL
                AND (m.definition = part.definition) IS NOT TRUE
            UNION ALL SELECT o.slice_start, o.slice_end FROM tallymark.outstanding o
            WHERE o.rollup = part.rollup AND o.slice_start > range_start - widest AND o.slice_start < range_end
                AND o.slice_end > range_start AND o.cleared < o.generation
            UNION ALL SELECT f, f + widest FROM unnest(part.failing) f
            WHERE f > range_start - widest AND f < range_end
        ) d;
        doubtful_from := least(doubtful_from, found_from);
        doubtful_until := greatest(doubtful_until, found_until);
        level := level + 1;
        finer := part.finer;
        EXIT WHEN finer IS NULL;
        SELECT c.* INTO part FROM tallymark.checked c WHERE c.rollup = finer;
    END LOOP;
    IF finer IS NOT NULL THEN
        -- No tick has told how far that one is.
        doubtful_from := markers_from;
        doubtful_until := markers_until;
    END IF;
    IF doubtful_from IS NOT NULL THEN
        -- A sealed slice holds what its definition counted, and marks that came later.
        RETURN QUERY SELECT s.slice_start, s.slice_end, s.state <> 'kept_away'
            FROM tallymark.slices_of(of_rollup, doubtful_from, doubtful_until) s
            WHERE s.slice_start < range_end AND s.slice_end > range_start AND s.state <> 'complete'
                AND NOT (s.state = 'sealed' AND s.stale_since IS NULL AND EXISTS (
                    SELECT FROM tallymark.slice m WHERE m.rollup = of_rollup
                        AND m.slice_start = s.slice_start AND m.definition = known.definition));
        -- An open slice has no numbers yet of the time that is to come.
        RETURN QUERY SELECT m.open_until, m.slice_end, false FROM tallymark.slice m
            WHERE m.rollup = of_rollup AND m.slice_start >= doubtful_from AND m.slice_start < doubtful_until
                AND m.open_until < range_end AND m.slice_end > range_start AND m.kept_away IS NULL;
    END IF;
    IF markers_from <= range_start AND markers_until >= range_end AND length = markers_until - markers_from THEN
        RETURN;
    END IF;
    -- What no slice covers is missing, unless the source has no rows there.
    RETURN QUERY SELECT p.first, p.last, false
        FROM (
            SELECT range_start AS first, coalesce(markers_from, range_end) AS last
            UNION ALL SELECT coalesce(markers_until, range_end), range_end
            UNION ALL SELECT g.before, g.slice_start FROM (
                SELECT m.slice_start, lag(m.slice_end) OVER (ORDER BY m.slice_start) AS before
                FROM tallymark.slice m
                WHERE length <> markers_until - markers_from AND m.rollup = of_rollup
                    AND m.slice_start > range_start - widest AND m.slice_start < range_end
                    AND m.slice_end > range_start AND m.replaced_at IS NOT NULL
            ) g WHERE g.before < g.slice_start
        ) gap, LATERAL (VALUES
            (gap.first, least(gap.last, CASE WHEN known.empty_before > known.history_from
                THEN known.history_from ELSE gap.last END)),
            (greatest(gap.first, CASE WHEN known.empty_before > known.history_from
                THEN known.empty_before ELSE gap.last END), gap.last)
        ) AS p (first, last)
        WHERE p.first < p.last AND p.first < range_end AND p.last > range_start;
END
$body$
