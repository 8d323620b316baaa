-- Deletes all rows but one of each group that stands in a slice of the rollup table more than once.
-- Grouped, so that values are equal here as they are in the source's GROUP BY. PostgreSQL 13 has no
-- min(tid).
WITH __gone AS (
    DELETE FROM {rollup} __r USING (
        SELECT unnest((array_agg(ctid))[2:]) AS __tid FROM {rollup}
        WHERE bucket >= {start} AND bucket < {end}
        GROUP BY {keys} HAVING count(*) > 1
    ) __d
    WHERE __r.ctid = __d.__tid AND __r.bucket >= {start} AND __r.bucket < {end}
    RETURNING 1
)
SELECT count(*) AS deleted FROM __gone
