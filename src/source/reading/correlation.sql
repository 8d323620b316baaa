-- The correlation between the order of the rows on disk and the index's first column: -1 to 1.
(SELECT s.correlation
 FROM pg_class t
 JOIN pg_namespace tn ON tn.oid = t.relnamespace
 JOIN pg_attribute f ON f.attrelid = t.oid AND f.attnum = i.indkey[0]
 JOIN pg_stats s ON s.schemaname = tn.nspname AND s.tablename = t.relname AND s.attname = f.attname
 WHERE t.oid = i.indrelid AND NOT s.inherited LIMIT 1)
