-- Takes the marker of a slice for an attempt. The statement returns no row in three cases. A newer
-- attempt has the marker. An attempt of the same number by another owner has it, as checkpoints
-- that were restored or lost repeat numbers. Or the registry refuses: the rollup's rows are of another
-- generation or belong to another installation, or the slice starts before the seal that an operator
-- set. The lock on the registry keeps that from changing.
--
-- From here on the transaction waits for no other server, so the server may soon end it if it is
-- idle. Otherwise a worker that is frozen would keep the marker, and what else it locks, from others.
--
-- It also locks the markers of another calendar that reach into the slice, until its own is written.
-- Another worker that replaces a slice in their time takes their rows away with them, and so would take
-- away those that this one has found as they should be.
--
-- The generation is that of readers' knowledge. It is read before the source is.
--
-- The marker's description of the data (rows_read, definition) stays until the data is replaced. A
-- count by another definition predicts this one's only if both select the same rows, which the
-- first half of the hash tells. But where there were rows, at least one is expected: a tick
-- recomputes slices of another definition, and must keep the results of rows that the source has
-- purged. The same holds for slices of another calendar, as far as they lie in this one.
WITH kept AS MATERIALIZED (
    SELECT rollup, set_config('idle_in_transaction_session_timeout', '{idle_ms}ms', true), (
        SELECT count(*) FROM (
            SELECT FROM tallymark.slice
            WHERE rollup = {rollup} AND slice_end > {start} AND slice_start <> {start}
              AND slice_start >= {since} AND slice_start < {end}
            ORDER BY slice_start FOR UPDATE
        ) AS other
    ) AS others
    FROM tallymark.rollup
    WHERE rollup = {rollup} AND generation = {generation} AND {is_kept}
      AND coalesce(sealed_before <= {start}, true) FOR SHARE
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
               ) THEN 1 END AS rows_read,
          {known} AS generation
