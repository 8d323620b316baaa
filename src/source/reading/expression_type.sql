-- An expression as a column of the relation that has it. PostgreSQL answers from the types alone, as
-- no row is read. A collation can only be asked for where the type has one.
SELECT {name}::name AS attname, 1::int2 AS attnum, t.oid AS atttypid, -1 AS atttypmod,
       CASE WHEN t.typcollation <> 0
            THEN coalesce(pg_collation_for(e.value)::regcollation::oid, 0::oid)
            ELSE 0::oid END AS attcollation
FROM (SELECT) one
LEFT JOIN (SELECT {column} AS value FROM {relation} WHERE false) e ON true
JOIN pg_type t ON t.oid = pg_typeof(e.value)
