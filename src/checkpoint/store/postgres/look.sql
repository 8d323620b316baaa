-- The table of checkpoints, and the rights that the role lacks, if the schema exists. It is looked up
-- in the catalogue, as to_regclass fails without USAGE on the schema.
SELECT has_schema_privilege(n.oid, 'USAGE') AS use, current_user::text AS role, c.oid IS NOT NULL AS is_there,
       coalesce(greatest(c.reltuples, 0), 0)::bigint AS items,
       coalesce(pg_total_relation_size(c.oid), 0) AS bytes,
       (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', '
                          ORDER BY a.attnum)
        FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       (SELECT string_agg(p.name, ', ' ORDER BY p.name)
        FROM unnest(ARRAY['DELETE', 'INSERT', 'SELECT', 'UPDATE']) AS p (name)
        WHERE NOT has_table_privilege(c.oid, p.name)) AS lacking
FROM pg_namespace AS n
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = {name}
WHERE n.nspname = 'tallymark'
