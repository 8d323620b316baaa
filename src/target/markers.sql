-- Writes the markers of neighbouring slices whose rows were replaced together, where nothing else is to
-- be written beside them (see marker.sql): no marker of another calendar reaches into their time, and no
-- change is to be cleared. Otherwise it writes nothing, and returns no row.
WITH mine AS MATERIALIZED (
    SELECT * FROM (VALUES
        {markers}
    ) AS it (slice_start, slice_end, definition, rows_read, groups, attempt, owner, changed, cleared)
), other AS MATERIALIZED (
    SELECT 1 AS found FROM tallymark.slice s
    WHERE s.rollup = {rollup} AND s.slice_end > {start} AND s.slice_start >= {since}
      AND s.slice_start < {end} AND NOT EXISTS (
          SELECT FROM mine WHERE mine.slice_start = s.slice_start AND mine.slice_end >= s.slice_end
      )
    UNION ALL
    SELECT 1 FROM tallymark.outstanding o
    WHERE o.rollup = {rollup} AND o.slice_end > {start} AND o.slice_start >= {since}
      AND o.slice_start < {end} AND NOT EXISTS (
          SELECT FROM mine WHERE mine.slice_start = o.slice_start AND mine.cleared = o.cleared
      )
)
UPDATE tallymark.slice s SET slice_end = mine.slice_end, definition = mine.definition,
    rows_read = mine.rows_read, groups = mine.groups, replaced_at = clock_timestamp(),
    replaced_by = mine.attempt, replaced_owner = mine.owner, open_until = NULL,
    changes = s.changes + mine.changed, window_start = NULL, window_generation = NULL
FROM mine
WHERE s.rollup = {rollup} AND s.slice_start >= {start} AND s.slice_start < {end}
  AND s.slice_start = mine.slice_start AND NOT EXISTS (SELECT FROM other)
RETURNING 1
