-- Says in the markers of all slices that start before {until} that their rows are gone, and deletes what
-- the last of them have from then on. The partitions of the time before are dropped next, in the same
-- transaction.
WITH marked AS (
    UPDATE tallymark.slice SET kept_away = clock_timestamp()
    WHERE rollup = {rollup} AND slice_start < {until} AND kept_away IS NULL
    RETURNING slice_end, groups
), rest AS (
    DELETE FROM {table} r
    WHERE r.{time} >= {until_at} AND r.{time} < (SELECT max({last}) FROM marked m)
)
SELECT count(*) AS slices, coalesce(sum(groups), 0)::bigint AS rows FROM marked
