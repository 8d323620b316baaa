-- Deletes all rows but one of each group that occurs in a slice of the rollup table more than once.
-- GROUP BY compares the values here exactly as in the source's statement. PostgreSQL 13 lacks
-- min(tid). All rows of a group lie in one partition.
WITH __gone AS (
    DELETE FROM {rollup} __r USING (
        SELECT unnest((array_agg(ctid))[2:]) AS __tid, tableoid AS __part FROM {rollup}
        WHERE {time} >= {start} AND {time} < {end}
        GROUP BY {keys}, tableoid HAVING count(*) > 1
    ) __d
    WHERE __r.ctid = __d.__tid AND __r.tableoid = __d.__part AND __r.{time} >= {start} AND __r.{time} < {end}
    RETURNING 1
)
SELECT count(*) AS deleted FROM __gone
