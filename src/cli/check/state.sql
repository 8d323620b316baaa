-- The state of a server, as any role can see it. For settings that Tallymark's transactions
-- override, it reads the session's own values. The number of free connections is the least of those
-- that the server, the database and the role allow.
SELECT current_setting('default_transaction_read_only') = 'on' AS read_only,
       pg_is_in_recovery() AS replica,
       (SELECT reset_val || coalesce(unit, '') FROM pg_settings
        WHERE name = 'transaction_timeout' AND reset_val <> '0') AS transaction_timeout,
       least(s.connections - s.taken,
             (SELECT CASE WHEN d.datconnlimit >= 0 THEN d.datconnlimit END
                     - (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid)
              FROM pg_database d WHERE d.datname = current_database()),
             (SELECT CASE WHEN r.rolconnlimit >= 0 THEN r.rolconnlimit END
                     - (SELECT count(*) FROM pg_stat_activity a WHERE a.usename = r.rolname)
              FROM pg_roles r WHERE r.rolname = current_user))::bigint AS free,
       s.connections,
       -- Roles whose functions and operators could replace PostgreSQL's own. Owners of a schema are
       -- trusted with it.
       (SELECT string_agg(DISTINCT format('%I', n.nspname), ', ')
        FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
        LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE n.nspname = ANY (current_schemas(false)) AND a.privilege_type = 'CREATE'
          AND a.grantee <> n.nspowner AND NOT coalesce(r.rolsuper, false)
          AND coalesce(r.rolname, '') <> current_user) AS open_schemas,
       current_user::text AS role
FROM (SELECT current_setting('max_connections')::bigint
                 - current_setting('superuser_reserved_connections')::bigint
                 - coalesce(current_setting('reserved_connections', true)::bigint, 0) AS connections,
             (SELECT sum(numbackends) FROM pg_stat_database WHERE datid <> 0)::bigint AS taken) AS s
