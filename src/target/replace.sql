-- Makes the rows of one slice equal to the new result, and touches only what differs.
--
-- FULL JOIN, because PostgreSQL computes it by hashing or merging only: on a table without
-- statistics a nested loop over a million groups is never an option. The keys are compared as
-- one-element arrays, whose equality takes NULL for equal to NULL.
WITH diff AS MATERIALIZED (
    SELECT o.__tid, n.*, o.__tid IS NOT NULL AND n.bucket IS NOT NULL AND ({differs}) AS __differs
    FROM (
        {input}
    ) n
    FULL JOIN (
        SELECT ctid AS __tid, * FROM {rollup} WHERE bucket >= {start} AND bucket < {end}
    ) o ON {same_group}
), gone AS (
    DELETE FROM {rollup} r USING diff d
    WHERE r.ctid = d.__tid AND d.bucket IS NULL AND r.bucket >= {start} AND r.bucket < {end}
    RETURNING 1
), new AS (
    INSERT INTO {rollup} ({columns}) SELECT {columns} FROM diff WHERE __tid IS NULL
    RETURNING 1
), changed AS (
    UPDATE {rollup} r SET {assignments} FROM diff d
    WHERE r.ctid = d.__tid AND d.__differs AND r.bucket >= {start} AND r.bucket < {end}
    RETURNING 1
)
SELECT coalesce(sum(__rows), 0)::bigint AS rows_read,
       count(bucket) AS groups,
       (SELECT count(*) FROM new) AS inserted,
       (SELECT count(*) FROM changed) AS updated,
       (SELECT count(*) FROM gone) AS deleted
FROM diff
