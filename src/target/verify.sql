-- The groups in which the rollup differs from the source, with both sides as JSON. N equal groups
-- in the rollup count as N - 1 more differences.
WITH __pairs AS MATERIALIZED (
    SELECT __o.__old, __n.__new, ({differs}) AS __differs, {sides}
    FROM (
        SELECT row_number() OVER () AS __new, __i.* FROM (
            {input}
        ) __i
    ) __n
    FULL JOIN (
        SELECT row_number() OVER () AS __old, * FROM {rollup}
        WHERE bucket >= {start} AND bucket < {end}
    ) __o ON {same_group}
), __doubled AS (
    SELECT __new, min(__old) AS __kept FROM __pairs WHERE __new IS NOT NULL
    GROUP BY __new HAVING count(*) > 1
)
SELECT CASE WHEN __d.__old IS NULL THEN 'missing' WHEN __d.__new IS NULL THEN 'extra'
            WHEN __d.__old <> __k.__kept THEN 'doubled' ELSE 'differs' END AS difference,
       (CASE WHEN __d.__new IS NULL THEN {key_extra} ELSE {key} END)::text AS key,
       CASE WHEN __d.__new IS NOT NULL THEN {expected}::text END AS expected,
       CASE WHEN __d.__old IS NOT NULL THEN {actual}::text END AS actual,
       count(*) OVER () AS differences
FROM __pairs __d LEFT JOIN __doubled __k ON __d.__new = __k.__new
WHERE __d.__old IS NULL OR __d.__new IS NULL OR __d.__differs OR __d.__old <> __k.__kept
LIMIT {limit}
