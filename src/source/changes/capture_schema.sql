-- The schema tallymark, and a role besides superusers, the current role and the reading role that
-- may create objects in it. NULL: there is none.
SELECT (SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END
        FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
        LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE a.privilege_type = 'CREATE' AND NOT coalesce(r.rolsuper, false)
            AND coalesce(r.rolname, '') NOT IN (current_user, {reader})
            AND NOT (a.grantee = n.nspowner AND pg_has_role(current_user, n.nspowner, 'USAGE'))
        ORDER BY 1 LIMIT 1) AS stranger
FROM pg_namespace n WHERE n.nspname = 'tallymark'
