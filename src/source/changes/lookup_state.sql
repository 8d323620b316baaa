-- The table of a lookup, and the state of its capture for one captured table.
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
       c.relkind::text AS kind,
       c.relpersistence::text AS persistence,
       coalesce((SELECT string_agg(t.tgname || '=' || t.tgenabled::text, ',')
                 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                 WHERE t.tgrelid = c.oid AND p.pronamespace = to_regnamespace('tallymark')
                     AND p.proname = {function}), '') AS triggers,
       (SELECT obj_description(p.oid, 'pg_proc') FROM pg_proc p
        WHERE p.pronamespace = to_regnamespace('tallymark') AND p.proname = {function}) AS description,
       to_regclass('tallymark.lookup_mark') IS NOT NULL AS has_marks,
       -- A validated foreign key with exactly these columns: no row of the table precedes its key.
       EXISTS (SELECT FROM pg_constraint f
               WHERE f.contype = 'f' AND f.convalidated AND f.conrelid = to_regclass({source})
                   AND f.confrelid = c.oid
                   -- Version 18 and later can leave a key unenforced.
                   AND coalesce(to_jsonb(f) ->> 'conenforced', 'true') = 'true'
                   AND (SELECT array_agg((k.attname, s.attname)::text ORDER BY k.attname)
                        FROM unnest(f.confkey, f.conkey) p(k, s)
                        JOIN pg_attribute k ON k.attrelid = f.confrelid AND k.attnum = p.k
                        JOIN pg_attribute s ON s.attrelid = f.conrelid AND s.attnum = p.s)
                     = (SELECT array_agg((k, s)::text ORDER BY k)
                        FROM unnest(ARRAY[{keys}]::name[], ARRAY[{columns}]::name[]) p(k, s)))
           AS has_foreign_key,
       -- Version 18 and later compute such a column when it is read.
       (SELECT min(a.attname)::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND a.attname IN ({deciding})) AS virtual,
       -- The types of the key, without domains.
       ARRAY(SELECT quote_ident(tn.nspname) || '.' || quote_ident(b.typname)
             FROM unnest(ARRAY[{keys}]::name[]) WITH ORDINALITY k(name, place)
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = k.name AND NOT a.attisdropped
             JOIN pg_type t ON t.oid = a.atttypid
             JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
             JOIN pg_namespace tn ON tn.oid = b.typnamespace
             ORDER BY k.place) AS types,
       -- A column whose text depends on settings of the writer's session.
       (SELECT min(a.attname || ' is of type ' || format_type(a.atttypid, NULL))
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
        WHERE a.attrelid = c.oid AND a.attname IN ({keys}) AND NOT a.attisdropped
            AND b.typcategory NOT IN ('S', 'E') AND b.oid NOT IN (
                'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'uuid'::regtype)) AS unfit
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass({lookup})
