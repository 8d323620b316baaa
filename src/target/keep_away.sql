-- Deletes the rows of the oldest slices that `keep` leaves behind, and says so in their markers: about
-- {rows_max} rows, and at least one slice. Nothing is deleted that the registry does not seal, so no
-- replacement of such a slice can commit before or after. The statement may be killed, repeated or run
-- twice at once: the markers tell what is left.
WITH held AS MATERIALIZED (
    SELECT FROM tallymark.rollup
    WHERE rollup = {rollup} AND {is_kept} AND sealed_before >= {before} FOR SHARE
), candidates AS (
    SELECT slice_start, slice_end,
        sum(coalesce(groups, 0)) OVER (ORDER BY slice_start) - coalesce(groups, 0) AS earlier
    FROM tallymark.slice
    WHERE rollup = {rollup} AND slice_start < {before} AND kept_away IS NULL
      AND EXISTS (SELECT FROM held)
), oldest AS MATERIALIZED (
    SELECT slice_start, slice_end FROM candidates WHERE earlier < {rows_max}
    ORDER BY slice_start LIMIT {slices_max}
), gone AS (
    DELETE FROM {table} r USING oldest o
    WHERE r.{time} >= {first} AND r.{time} < {last}
    RETURNING 1
), marked AS (
    UPDATE tallymark.slice m SET kept_away = clock_timestamp() FROM oldest o
    WHERE m.rollup = {rollup} AND m.slice_start = o.slice_start AND m.kept_away IS NULL
    RETURNING 1
)
SELECT (SELECT count(*) FROM marked) AS slices, (SELECT count(*) FROM gone) AS rows,
    EXISTS (SELECT FROM held) AS is_sealed
