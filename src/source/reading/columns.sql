-- The columns of one table or view, or an expression beside them. `sql_type` leaves out modifiers,
-- as a widened varchar must not break the rollup. Exceptions are bit and character, whose bare names
-- mean one bit or one character.
WITH RECURSIVE listed AS (
{columns}
), base AS (
    -- A domain's base may itself be a domain. Only the last one has a modifier.
    SELECT attnum, atttypid AS typid, atttypmod AS typmod FROM listed
    UNION ALL
    SELECT b.attnum, d.typbasetype, d.typtypmod FROM base b
    JOIN pg_type d ON d.oid = b.typid AND d.typtype = 'd'
)
SELECT a.attname::text AS name,
       CASE WHEN t.typname IN ('bit', 'bpchar', '_bit', '_bpchar')
            THEN format_type(a.atttypid, a.atttypmod)
            ELSE format_type(a.atttypid, NULL) END AS sql_type,
       CASE WHEN bt.typname IN ('bit', 'bpchar', '_bit', '_bpchar')
            THEN format_type(b.typid, b.typmod)
            ELSE format_type(b.typid, NULL) END AS base_type,
       bt.typnamespace = 'pg_catalog'::regnamespace AS portable,
       bt.typtype = 'e' AS is_enum,
       t.typcategory = 'A' AS is_array,
       -- NULL groups are matched by array equality, so the type must be comparable. The elements of
       -- arrays and composites are left to `check_comparable`.
       (t.typarray <> 0 OR t.typcategory = 'A') AND EXISTS (
           SELECT FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod
           WHERE m.amname = 'btree' AND c.opcdefault
             AND (c.opcintype = bt.oid
                  OR (bt.typtype = 'e' AND c.opcintype = 'anyenum'::regtype)
                  OR (bt.typtype = 'r' AND c.opcintype = 'anyrange'::regtype)
                  OR (bt.typtype = 'm' AND c.opcintype = to_regtype('anymultirange'))
                  OR (bt.typtype = 'c' AND c.opcintype = 'record'::regtype)
                  OR (bt.typcategory = 'A' AND c.opcintype = 'anyarray'::regtype)
                  OR EXISTS (SELECT FROM pg_cast k
                             WHERE k.castsource = bt.oid
                               AND k.casttarget = c.opcintype AND k.castmethod = 'b'))) AS comparable,
       CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation
            THEN quote_ident(n.nspname) || '.' || quote_ident(o.collname) END AS collation,
       coalesce(o.collisdeterministic, true) AS deterministic,
       -- The order of the column's values, by a name that other databases know too. For this
       -- database's default it is the collation with the same meaning (`en_US.UTF-8`:
       -- "en_US.utf8").
       CASE WHEN a.attcollation <> 0 AND n.nspname <> 'pg_catalog' THEN NULL
            WHEN o.collname <> 'default' THEN 'pg_catalog.' || quote_ident(o.collname)
            ELSE (SELECT 'pg_catalog.' || quote_ident(c.collname)
                  FROM pg_database d, pg_collation c
                  WHERE d.datname = current_database() AND a.attcollation <> 0
                    AND c.collnamespace = 'pg_catalog'::regnamespace AND c.collname <> 'default'
                    AND c.collencoding IN (-1, d.encoding)
                    -- Only version 15 and later have a choice of provider.
                    AND c.collprovider::text = coalesce(to_jsonb(d) ->> 'datlocprovider', 'c')
                    AND lower(replace(c.collcollate, '-', '')) = lower(replace(d.datcollate, '-', ''))
                  ORDER BY c.collname LIMIT 1) END AS order_abroad,
       a.attcollation <> 0 AND n.nspname <> 'pg_catalog' AS own_order,
       -- Who asks: a later refusal aborts the transaction, and its hint names the role.
       quote_ident(current_user) AS reader
FROM listed a
JOIN pg_type t ON t.oid = a.atttypid
JOIN base b ON b.attnum = a.attnum
JOIN pg_type bt ON bt.oid = b.typid AND bt.typtype <> 'd'
LEFT JOIN pg_collation o ON o.oid = a.attcollation
LEFT JOIN pg_namespace n ON n.oid = o.collnamespace
ORDER BY a.attnum
