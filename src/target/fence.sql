-- Takes the marker of a slice for an attempt. No row comes back when a newer attempt has it, or an
-- attempt of the same number by another owner, as checkpoints that were restored or lost count anew;
-- or when the rollup's rows are of another generation or kept by another installation, which the
-- registry's lock keeps as it is.
-- What the marker says of the data (rows_read, definition) stays: it is replaced with the data.
-- Rows that another definition counted say nothing about how many this one should find, unless
-- both select the same rows, which the first half of the hash says. But where there were rows, there
-- should be one: a tick recomputes what another definition computed, and must not erase what the
-- source has purged. That holds for slices of another calendar too, as far as they lie in this one.
WITH kept AS MATERIALIZED (
    SELECT rollup FROM tallymark.rollup
    WHERE rollup = {rollup} AND generation = {generation} AND {is_kept} FOR SHARE
)
INSERT INTO tallymark.slice AS marker (rollup, slice_start, slice_end, attempt, owner)
SELECT {rollup}, {start}, {end}, {attempt}, {owner} FROM kept
ON CONFLICT (rollup, slice_start) DO UPDATE SET attempt = excluded.attempt, owner = excluded.owner
WHERE marker.attempt < excluded.attempt
   OR marker.attempt = excluded.attempt AND coalesce(marker.owner, excluded.owner) = excluded.owner
RETURNING CASE WHEN left(marker.definition, 8) = left({definition}, 8) THEN marker.rows_read
               WHEN marker.rows_read > 0 AND marker.slice_end <= {end} THEN 1
               WHEN EXISTS (
                   SELECT FROM tallymark.slice o
                   WHERE o.rollup = {rollup} AND o.slice_start > {start} AND o.slice_start < {end}
                     AND o.slice_end <= {end} AND o.rows_read > 0
               ) THEN 1 END AS rows_read
