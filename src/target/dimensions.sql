-- How each dimension can be part of an index, in their order. `plain`: a value has a small width
-- and an order. `text`: it is text, or the same bytes. `other`: its width is unbounded. A domain
-- counts as its base type. The names are as PostgreSQL writes them.
WITH RECURSIVE dimension AS (
    SELECT name, to_regtype(type)::oid AS typid, place, false AS is_domain
    FROM ROWS FROM (unnest({names}::text[]), unnest({types}::text[])) WITH ORDINALITY w (name, type, place)
    UNION ALL
    SELECT d.name, t.typbasetype, d.place, true
    FROM dimension d JOIN pg_type t ON t.oid = d.typid AND t.typtype = 'd'
)
SELECT quote_ident(d.name) AS name,
       CASE WHEN t.oid IN ('inet'::regtype, 'cidr'::regtype)
              OR t.typlen BETWEEN 1 AND 64 AND (t.typtype = 'e' OR EXISTS (
                  SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
                  WHERE o.opcintype = t.oid AND o.opcdefault)) THEN 'plain'
            WHEN t.oid = 'bytea'::regtype THEN 'bytes'
            WHEN t.oid = 'numeric'::regtype THEN 'numeric'
            WHEN t.oid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) OR EXISTS (
                  SELECT FROM pg_cast c WHERE c.castsource = t.oid AND c.casttarget = 'text'::regtype
                  AND c.castmethod = 'b') THEN 'text'
            ELSE 'other' END AS class,
       d.is_domain OR coalesce(t.oid NOT IN ('text'::regtype, 'bytea'::regtype, 'numeric'::regtype), true)
           AS needs_cast
FROM dimension d LEFT JOIN pg_type t ON t.oid = d.typid
WHERE t.typtype IS DISTINCT FROM 'd'
ORDER BY d.place
