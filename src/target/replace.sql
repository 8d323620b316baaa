-- Makes the rows of one slice equal to the new result, and touches only what differs.
--
-- FULL JOIN, because PostgreSQL computes it by hashing or merging only: on a table without
-- statistics a nested loop over a million groups is never an option. The keys are compared as
-- one-element arrays, whose equality takes NULL for equal to NULL.
--
-- A group that stands twice in the table is joined twice. `joined` is then greater than `groups`, and
-- doubled.sql deletes the surplus rows. All of our own names begin with `__`, as no column of a
-- rollup does.
WITH __diff AS MATERIALIZED (
    SELECT __o.__tid, __n.*,
           __o.__tid IS NOT NULL AND __n.bucket IS NOT NULL AND ({differs}) AS __differs
    FROM (
        SELECT row_number() OVER () AS __new, __i.* FROM (
            {input}
        ) __i
    ) __n
    FULL JOIN (
        SELECT ctid AS __tid, * FROM {rollup} WHERE bucket >= {start} AND bucket < {end}
    ) __o ON {same_group}
), __gone AS (
    DELETE FROM {rollup} __r USING __diff __d
    WHERE __r.ctid = __d.__tid AND __d.bucket IS NULL AND __r.bucket >= {start} AND __r.bucket < {end}
    RETURNING 1
), __added AS (
    INSERT INTO {rollup} ({columns}) SELECT {columns} FROM __diff WHERE __tid IS NULL
    RETURNING 1
), __changed AS (
    UPDATE {rollup} __r SET {assignments} FROM __diff __d
    WHERE __r.ctid = __d.__tid AND __d.__differs AND __r.bucket >= {start} AND __r.bucket < {end}
    RETURNING 1
)
SELECT coalesce(sum(__rows), 0)::bigint AS rows_read,
       coalesce(max(__new), 0) AS groups,
       count(bucket) AS joined,
       (SELECT count(*) FROM __added) AS inserted,
       (SELECT count(*) FROM __changed) AS updated,
       (SELECT count(*) FROM __gone) AS deleted
FROM __diff
