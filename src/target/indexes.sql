-- The unique indexes of a table. `keys` are as PostgreSQL writes them. An expression that is
-- compared byte for byte, as by every deterministic collation, has the collation "C". `is_whole`:
-- the index rules out two rows with equal keys. `takes_null`: NULL is equal to NULL in the index.
-- It is NULL before PostgreSQL 15, where NULLs are always different. DESC and similar options make
-- no difference.
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
       k.conname IS NOT NULL AS is_constraint,
       i.indisvalid AND i.indisready AND i.indislive AND i.indimmediate AND i.indpred IS NULL
           AND NOT EXISTS (SELECT FROM unnest(i.indclass::oid[]) o
                           JOIN pg_opclass p ON p.oid = o WHERE NOT p.opcdefault) AS is_whole,
       (to_jsonb(i) ->> 'indnullsnotdistinct')::boolean AS takes_null,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, place, false)
                 || CASE WHEN i.indkey[place - 1] = 0 AND EXISTS (
                        SELECT FROM pg_collation o
                        WHERE o.oid = i.indcollation[place - 1] AND o.collisdeterministic
                    ) THEN ' COLLATE "C"' ELSE '' END
             FROM generate_series(1, i.indnkeyatts) place) AS keys,
       ARRAY(SELECT quote_ident(name) FROM unnest({names}::text[]) WITH ORDINALITY w (name, place)
             ORDER BY place) AS names
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid = to_regclass({relation}) AND i.indisunique
ORDER BY c.relname
