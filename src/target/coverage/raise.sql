-- Raises the generation of slices that have to run again. Readers see them as stale until the rows
-- are of an attempt that read this generation before it read the source.
INSERT INTO tallymark.outstanding AS o (rollup, slice_start, slice_end, generation, since, reason)
SELECT {rollup}, s.first, s.last, 1, clock_timestamp(), {reason}
FROM unnest({starts}::timestamptz[], {ends}::timestamptz[]) AS s (first, last) ORDER BY s.first
ON CONFLICT (rollup, slice_start) DO UPDATE SET
    generation = o.generation + 1, slice_end = excluded.slice_end, reason = excluded.reason,
    changed_from = '-infinity',
    since = CASE WHEN o.cleared < o.generation THEN o.since ELSE excluded.since END
