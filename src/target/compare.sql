-- In how many groups the rollup differs from the source, and whether each group stands in the rollup at
-- most once: a group that stands there twice is joined twice. verify.sql says which these are; most
-- comparisons find none, so this statement carries no values.
SELECT count(*) FILTER (WHERE __o.__tid IS NULL OR __n.bucket IS NULL OR ({differs})) AS differences,
       count(__n.bucket) = coalesce(max(__new), 0) AS is_paired
FROM (
    SELECT row_number() OVER () AS __new, __i.* FROM (
        {input}
    ) __i
) __n
FULL JOIN (
    SELECT ctid AS __tid, * FROM {rollup} WHERE bucket >= {start} AND bucket < {end}
) __o ON {same_group}
