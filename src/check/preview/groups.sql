-- The groups of some buckets as a run would compute them, in the order of buckets and dimensions: as texts
-- and as JSON the largest of the first buckets, and each in the form in which it is compared.
SELECT CASE WHEN __p.__place <= {limit} THEN ARRAY[{cells}]::text[] END AS cells,
       CASE WHEN __p.__place <= {limit} THEN
           (SELECT row_to_json(__j) FROM (SELECT {columns}) __j)::text END AS document,
       ARRAY[{compared}]::text[] AS compared, __p.__groups AS groups, __p.__total AS rows
FROM (
    SELECT __g.*, {generated}row_number() OVER (ORDER BY {order}) AS __place,
           count(*) OVER () AS __groups, (sum(__g.__rows) OVER ())::bigint AS __total
    FROM (
{input}
    ) __g
) __p
WHERE __p.__place <= {max}
ORDER BY {shown}
