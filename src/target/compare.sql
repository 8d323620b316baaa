-- Counts the groups in which the rollup differs from the source, and the pairs of a group and its
-- rows in the rollup. A group with two rows is joined twice, so the counts show whether each group
-- occurs at most once. Most comparisons find no difference, so this statement leaves out the
-- values. verify.sql then lists the differences.
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
