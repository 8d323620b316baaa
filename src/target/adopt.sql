-- Takes over the rows of another job's table for these slices, where they have no rows of Tallymark's.
-- Nothing is written that the registry does not seal, so no replacement of such a slice can commit before
-- or after. The markers tell what is left, so the statement may be killed, repeated or run twice at once.
WITH held AS MATERIALIZED (
    SELECT FROM tallymark.rollup
    WHERE rollup = {rollup} AND {is_kept} AND sealed_before >= {before} FOR SHARE
), taken AS (
    INSERT INTO tallymark.slice AS m
        (rollup, slice_start, slice_end, attempt, adopted_from, groups, replaced_at, changes)
    SELECT {rollup}, s.first, s.last, 0, {name},
        (SELECT count(*) FROM {foreign} f WHERE f.bucket >= {first} AND f.bucket < {last}),
        clock_timestamp(), 1
    FROM unnest({starts}::timestamptz[], {ends}::timestamptz[]) AS s (first, last)
    WHERE EXISTS (SELECT FROM held)
    ORDER BY s.first
    ON CONFLICT (rollup, slice_start) DO UPDATE SET adopted_from = excluded.adopted_from,
        slice_end = excluded.slice_end, groups = excluded.groups, replaced_at = excluded.replaced_at,
        changes = m.changes + 1
    WHERE m.replaced_at IS NULL
    RETURNING m.slice_start AS first, m.slice_end AS last
), rows AS (
    INSERT INTO {table} ({columns})
    SELECT {values} FROM taken s JOIN {foreign} f ON f.bucket >= {first} AND f.bucket < {last}
    RETURNING 1
)
SELECT (SELECT count(*) FROM taken) AS slices, (SELECT count(*) FROM rows) AS rows,
    EXISTS (SELECT FROM held) AS is_sealed
