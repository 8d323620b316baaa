-- The schema tallymark, and who may put things into it beside superusers, the role that asks and the
-- role that reads; none of these: NULL.
SELECT (SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END
        FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
        LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE a.privilege_type = 'CREATE' AND NOT coalesce(r.rolsuper, false)
            AND coalesce(r.rolname, '') NOT IN (current_user, {reader})
            AND NOT (a.grantee = n.nspowner AND pg_has_role(current_user, n.nspowner, 'USAGE'))
        ORDER BY 1 LIMIT 1) AS stranger
FROM pg_namespace n WHERE n.nspname = 'tallymark'
