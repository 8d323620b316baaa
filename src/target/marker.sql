-- Writes the marker of a slice whose rows were replaced, and takes away what slices of another
-- calendar left: the markers that overlap it, and their rows outside of it, where other slices of
-- this calendar will put theirs. Slices of one calendar never overlap, so every other marker that
-- does is of another one. A slice that is sealed is left, and told: nothing may be computed beside it.
WITH other AS MATERIALIZED (
    SELECT slice_start, slice_end, replaced_at FROM tallymark.slice
    WHERE rollup = {rollup} AND slice_end > {start}
      AND (slice_start < {start} OR (slice_start > {start} AND slice_start < {end}))
    UNION ALL
    -- Another width may have begun a slice at the same instant.
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
    WHERE r.bucket >= o.slice_start AND r.bucket < o.slice_end
      AND NOT (r.bucket >= {start} AND r.bucket < {end})
)
UPDATE tallymark.slice SET slice_end = {end}, definition = {definition}, rows_read = {rows_read},
    groups = {groups}, replaced_at = clock_timestamp(), replaced_by = {attempt},
    replaced_owner = {owner}
WHERE rollup = {rollup} AND slice_start = {start}
RETURNING (SELECT first FROM sealed) AS sealed
