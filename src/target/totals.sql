-- The sums of measures over all groups of slices
SELECT ARRAY[{sums}] AS totals
FROM (VALUES {slices}) AS __s (place, starts, ends)
LEFT JOIN {rollup} AS __t ON __t.{bucket} >= __s.starts AND __t.{bucket} < __s.ends
GROUP BY __s.place
ORDER BY __s.place
