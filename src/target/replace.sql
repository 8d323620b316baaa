-- Makes the rows of one slice equal to the new result, and changes only rows that differ.
--
-- FULL JOIN, because PostgreSQL computes it only by hashing or merging. Even on a table without
-- statistics it never chooses a nested loop over a million groups. The keys are compared as
-- one-element arrays, whose equality treats NULL as equal to NULL.
--
-- A group that occurs twice in the table is joined twice. Then `joined` is greater than `groups`,
-- and doubled.sql deletes the surplus rows. Tallymark's own names begin with `__`, which is
-- reserved: the columns of a rollup start differently.
--
-- Rows of two partitions may have equal places (`ctid`), so the partition of a row stands beside its
-- place. Each range of time is a constant, by which the planner finds the partitions of the slice.
WITH __diff AS MATERIALIZED (
    SELECT __o.__tid{of_partition}, __n.*,
           __o.__tid IS NOT NULL AND __n.{time} IS NOT NULL AND ({differs}) AS __differs
    FROM (
        SELECT row_number() OVER () AS __new, __i.* FROM (
            {input}
        ) __i
    ) __n
    FULL JOIN (
        SELECT ctid AS __tid{partition}, * FROM {rollup} WHERE {time} >= {start} AND {time} < {end}
    ) __o ON {same_group}
), __gone AS (
    DELETE FROM {rollup} __r USING __diff __d
    WHERE __r.ctid = __d.__tid{same_partition} AND __d.{time} IS NULL AND __r.{time} >= {start} AND __r.{time} < {end}{nap}
    RETURNING __r.{time} AS __at
), __added AS (
    INSERT INTO {rollup} ({columns}) SELECT {columns} FROM __diff WHERE __tid IS NULL{nap}
    RETURNING {time} AS __at
), __changed AS (
    UPDATE {rollup} __r SET {assignments} FROM __diff __d
    WHERE __r.ctid = __d.__tid{same_partition} AND __d.__differs AND __r.{time} >= {start} AND __r.{time} < {end}{nap}
    RETURNING __r.{time} AS __at
)
{counts}
