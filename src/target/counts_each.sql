-- The counts of each of several slices, by its place among them. A group is in the slice of its time.
-- `computed` counts all groups of the new result once, also those that the table has twice.
SELECT width_bucket(__at, ARRAY[{starts}]) AS place,
       sum(__rows)::bigint AS rows_read,
       count(*) FILTER (WHERE __what = 'group') AS groups,
       count(*) FILTER (WHERE __what = 'added') AS inserted,
       count(*) FILTER (WHERE __what = 'changed') AS updated,
       count(*) FILTER (WHERE __what = 'gone') AS deleted,
       (SELECT coalesce(max(__new), 0) FROM __diff) AS computed
FROM (
    SELECT {time} AS __at, __rows, 'group' AS __what FROM __diff WHERE {time} IS NOT NULL
    UNION ALL SELECT __at, 0, 'added' FROM __added
    UNION ALL SELECT __at, 0, 'changed' FROM __changed
    UNION ALL SELECT __at, 0, 'gone' FROM __gone
) __counted
GROUP BY place
