-- The groups of another job's table in some buckets, in the form in which they are compared.
SELECT ARRAY[{compared}]::text[] AS compared
FROM {table} __f
WHERE __f.bucket >= {start} AND __f.bucket < {end}
LIMIT {max}
