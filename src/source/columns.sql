-- The columns of one table or view. `sql_type` leaves out modifiers (a widened varchar must not
-- break the rollup), except for bit and character, whose bare names mean one bit, one character.
SELECT a.attname::text AS name,
       CASE WHEN t.typname IN ('bit', 'bpchar')
            THEN format_type(a.atttypid, a.atttypmod)
            ELSE format_type(a.atttypid, NULL) END AS sql_type,
       CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, NULL)
            ELSE format_type(a.atttypid, NULL) END AS base_type,
       CASE WHEN t.typtype = 'd' THEN (SELECT b.typnamespace FROM pg_type b WHERE b.oid = t.typbasetype)
            ELSE t.typnamespace END = 'pg_catalog'::regnamespace AS portable,
       t.typtype = 'e' AS is_enum,
       t.typcategory = 'A' AS is_array,
       -- Array equality is how NULL groups are matched, so the type must be comparable.
       (t.typarray <> 0 OR t.typcategory = 'A') AND EXISTS (
           SELECT FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod
           WHERE m.amname = 'btree' AND c.opcdefault
             AND (c.opcintype = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
                  OR (t.typtype = 'e' AND c.opcintype = 'anyenum'::regtype)
                  OR (t.typtype = 'r' AND c.opcintype = 'anyrange'::regtype)
                  OR (t.typtype = 'm' AND c.opcintype = to_regtype('anymultirange'))
                  OR (t.typtype = 'c' AND c.opcintype = 'record'::regtype)
                  OR (t.typcategory = 'A' AND c.opcintype = 'anyarray'::regtype)
                  OR EXISTS (SELECT FROM pg_cast b
                             WHERE b.castsource = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
                               AND b.casttarget = c.opcintype AND b.castmethod = 'b'))) AS comparable,
       CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation
            THEN quote_ident(n.nspname) || '.' || quote_ident(o.collname) END AS collation,
       coalesce(o.collisdeterministic, true) AS deterministic
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_collation o ON o.oid = a.attcollation
LEFT JOIN pg_namespace n ON n.oid = o.collnamespace
WHERE a.attrelid = to_regclass({relation}) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
