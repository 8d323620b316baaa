-- The properties that decide the values of a rollup's columns, besides its definition: types,
-- generation expressions, the text of views and of the functions that they call or that expressions
-- name, and the tables.
-- Names are written with their schemas, as the search path is PostgreSQL's own.
WITH RECURSIVE tree AS (
    SELECT {oid}::oid AS oid
    UNION
    SELECT e.child FROM tree, LATERAL (
        SELECT inhrelid AS child FROM pg_inherits WHERE inhparent = tree.oid
        UNION ALL
        SELECT m[1]::oid FROM pg_rewrite r,
            LATERAL regexp_matches(r.ev_action::text, ':relid (\d+)', 'g') m
        WHERE r.ev_class = tree.oid AND r.ev_type = '1'
    ) e
), used AS (
    SELECT a.attname::text AS name, a.attnum, format_type(a.atttypid, a.atttypmod) AS sql_type,
           (SELECT collname::text FROM pg_collation o WHERE o.oid = a.attcollation) AS ordering,
           CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS expression,
           CASE WHEN a.attgenerated <> '' THEN d.adbin::text END AS generated
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = {oid}::oid AND a.attnum > 0 AND NOT a.attisdropped
      AND (a.attname::text IN ({names}) OR position(a.attname::text IN {conditions}) > 0)
), views AS (
    SELECT c.relname::text AS name, pg_get_viewdef(c.oid) AS text, r.ev_action::text AS action
    FROM tree JOIN pg_class c ON c.oid = tree.oid
    JOIN pg_rewrite r ON r.ev_class = c.oid AND r.ev_type = '1'
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
), calls AS (
    SELECT t.owner, string_agg(DISTINCT p.oid::regprocedure::text || p.prosrc, chr(10)) AS text
    FROM (SELECT '' AS owner, action AS text FROM views UNION ALL SELECT name, generated FROM used) t,
        LATERAL regexp_matches(t.text, ':(?:funcid|opfuncid) (\d+)', 'g') m
    JOIN pg_proc p ON p.oid = m[1]::oid
    WHERE p.pronamespace <> 'pg_catalog'::regnamespace
    GROUP BY t.owner
)
SELECT coalesce((SELECT string_agg(concat_ws(':',
                            left(md5(name), 12), left(md5(concat_ws('|', sql_type, ordering)), 12),
                            left(md5(concat_ws('|', expression, calls.text)), 12),
                            CASE WHEN c.relkind IN ('r', 'p', 'f') THEN attnum ELSE 0 END), ',')
                 FROM used LEFT JOIN calls ON calls.owner = used.name
                 JOIN pg_class c ON c.oid = {oid}::oid), '') AS columns,
       md5(coalesce((SELECT string_agg(text, chr(10) ORDER BY name, text) FROM views), '') || chr(10)
           || coalesce((SELECT text FROM calls WHERE owner = ''), '')
           || coalesce((SELECT chr(10) || string_agg(p.oid::regprocedure::text || p.prosrc, chr(10)
                                                     ORDER BY p.oid::regprocedure::text)
                        FROM pg_proc p
                        WHERE {expressions} <> '' AND p.pronamespace <> 'pg_catalog'::regnamespace
                          AND position(p.proname::text IN {expressions}) > 0), '')) AS texts,
       md5(coalesce((SELECT string_agg(c.oid::text, ',' ORDER BY c.oid) FROM tree
                     JOIN pg_class c ON c.oid = tree.oid
                     WHERE c.relkind IN ('r', 'p', 'f')
                       AND NOT EXISTS (SELECT FROM pg_inherits i JOIN tree p ON p.oid = i.inhparent
                                       WHERE i.inhrelid = c.oid)), '')) AS places
