-- Whether the rollup tables can be in this database, and which names are taken there.
SELECT extract(epoch FROM clock_timestamp())::float8 AS now,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean
           AS is_read_only,
       has_database_privilege(current_database(), 'CREATE') AS may_create,
       -- Where a rollup's table is, the same file was made before.
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c
             WHERE c.relnamespace = to_regnamespace({schema})
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                               WHERE a.attrelid = c.oid AND a.attnum = 1 AND a.attname = 'bucket')
             ORDER BY c.relname) AS taken
