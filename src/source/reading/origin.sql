-- The relations below a rollup's table or view: itself, its partitions and children, and all
-- relations that its views read, at any depth. A view's tree names each relation and function by
-- its ID. That includes PostgreSQL's own, which are missing from its recorded dependencies.
WITH RECURSIVE tree AS (
    SELECT to_regclass({relation})::oid AS oid
    UNION
    SELECT e.child FROM tree, LATERAL (
        SELECT inhrelid AS child FROM pg_inherits WHERE inhparent = tree.oid
        UNION ALL
        SELECT m[1]::oid FROM pg_rewrite r,
            LATERAL regexp_matches(r.ev_action::text, ':relid (\d+)', 'g') m
        WHERE r.ev_class = tree.oid AND r.ev_type = '1'
    ) e
)
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
       c.relkind::text AS kind,
       c.relpersistence::text AS persistence,
       n.nspname IN ('pg_catalog', 'information_schema') AS is_own,
       EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = c.oid) AS is_subscribed,
       EXISTS (SELECT FROM pg_inherits i JOIN tree p ON p.oid = i.inhparent WHERE i.inhrelid = c.oid)
           AS is_child,
       coalesce(v.tree ~ 'SQLVALUEFUNCTION', false) AS has_clock,
       coalesce(v.tree ~ ':rtekind 3', false) AS has_function_rows,
       coalesce(v.tree ~ ':(hasAggs|hasWindowFuncs|hasTargetSRFs|hasSubLinks|hasDistinctOn) true'
                OR v.tree ~ ':(limitCount|limitOffset) \{{'
                OR v.tree ~ ':(distinctClause|groupClause) \(', false) AS has_merged_rows,
       (SELECT min(p.oid::regprocedure::text) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.oid IN (SELECT m[1]::oid FROM regexp_matches(v.tree, ':(?:funcid|opfuncid) (\d+)', 'g') m)
          AND (p.provolatile = 'v'
               OR (p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile <> 'i' AND p.proname IN (
                   'now', 'statement_timestamp', 'transaction_timestamp', 'current_setting', 'age'))
               OR (p.pronamespace <> 'pg_catalog'::regnamespace AND p.provolatile <> 'i'
                   AND l.lanname <> 'c')
               OR l.lanname NOT IN ('internal', 'c', 'sql', 'plpgsql'))) AS function
FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT string_agg(r.ev_action::text, ' ') AS tree FROM pg_rewrite r
    WHERE r.ev_class = c.oid AND r.ev_type = '1'
) v ON true
ORDER BY c.oid <> to_regclass({relation})::oid, n.nspname, c.relname
