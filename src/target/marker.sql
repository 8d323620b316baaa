-- Writes the marker of a slice whose rows were replaced, and removes the remains of another
-- calendar: the markers that overlap the slice, and their rows outside of it, which other slices of
-- this calendar will compute. Slices of one calendar never overlap, so every overlapping marker
-- belongs to another one. A sealed slice is kept and returned, as computing the slice beside it
-- must be refused.
--
-- `since` is the earliest start of a slice that reaches into this one. It keeps the cost of a slice
-- apart from the number of slices before it. `in_reach` does the same for partitions.
WITH other AS MATERIALIZED (
    SELECT slice_start, slice_end, replaced_at FROM tallymark.slice
    WHERE rollup = {rollup} AND slice_end > {start} AND slice_start <> {start}
      AND slice_start >= {since} AND slice_start < {end}
    UNION ALL
    -- A slice of another width may start at the same instant.
    SELECT slice_start, slice_end, replaced_at FROM tallymark.slice
    WHERE rollup = {rollup} AND slice_start = {start} AND slice_end > {end}
), sealed AS MATERIALIZED (
    SELECT min(slice_start) AS first FROM other
    WHERE slice_start < {seal} AND replaced_at IS NOT NULL
), gone AS (
    DELETE FROM tallymark.slice m USING other
    WHERE m.rollup = {rollup} AND m.slice_start = other.slice_start AND m.slice_start <> {start}
      AND m.slice_end > {start}
    RETURNING m.slice_start, m.slice_end
), rows AS (
    DELETE FROM {table} r USING (
        SELECT slice_start, slice_end FROM gone UNION ALL
        SELECT slice_start, slice_end FROM other WHERE slice_start = {start}
    ) o
    WHERE r.{time} >= {other_first} AND r.{time} < {other_last}
      AND NOT (r.{time} >= {first} AND r.{time} < {last})
      {in_reach}
), forgotten AS (
    DELETE FROM tallymark.outstanding WHERE rollup = {rollup} AND slice_end > {start}
      AND slice_start <> {start} AND slice_start >= {since} AND slice_start < {end}
), cleared AS (
    -- It may be lower than before: a newer attempt may have read the source earlier. Then nothing is
    -- known of the changes that it lacks.
    UPDATE tallymark.outstanding SET cleared = {cleared},
        changed_from = CASE WHEN cleared > {cleared} THEN '-infinity' ELSE changed_from END
    WHERE rollup = {rollup} AND slice_start = {start} AND cleared <> {cleared}
){coarse}
UPDATE tallymark.slice SET slice_end = {end}, definition = {definition}, rows_read = {rows_read},
    groups = {groups}, replaced_at = clock_timestamp(), replaced_by = {attempt},
    replaced_owner = {owner}, open_until = {open_until}, changes = changes + {changed},
    window_start = {window_start}, window_generation = {window_generation}
WHERE rollup = {rollup} AND slice_start = {start}
RETURNING (SELECT first FROM sealed) AS sealed, EXISTS (SELECT FROM other) AS has_other
