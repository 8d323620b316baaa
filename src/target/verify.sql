-- The groups in which the rollup differs from the source; both sides as JSON.
SELECT CASE WHEN o.__tid IS NULL THEN 'missing' WHEN n.bucket IS NULL THEN 'extra' ELSE 'differs' END
           AS difference,
       (CASE WHEN n.bucket IS NULL THEN {key_extra} ELSE {key} END)::text AS key,
       CASE WHEN n.bucket IS NOT NULL THEN {expected}::text END AS expected,
       CASE WHEN o.__tid IS NOT NULL THEN {actual}::text END AS actual,
       count(*) OVER () AS differences
FROM (
    {input}
) n
FULL JOIN (
    SELECT ctid AS __tid, * FROM {rollup} WHERE bucket >= {start} AND bucket < {end}
) o ON {same_group}
WHERE o.__tid IS NULL OR n.bucket IS NULL OR ({differs})
LIMIT {limit}
