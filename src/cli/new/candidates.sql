c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
  -- Tables of extensions.
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  -- PostgreSQL's own, Tallymark's own, and those of hosts and frameworks.
  AND n.nspname !~ '^(pg_|_timescaledb|_realtime$|_analytics$|_supavisor$)'
  AND n.nspname NOT IN (
      'information_schema', 'tallymark',
      'auth', 'storage', 'realtime', 'vault', 'extensions', 'graphql', 'graphql_public',
      'pgbouncer', 'pgsodium', 'pgsodium_masks', 'supabase_functions', 'supabase_migrations',
      'net', 'cron', 'neon', 'neon_auth', 'heroku_ext', 'hdb_catalog', 'drizzle', 'pgboss',
      'graphile_worker', 'tiger', 'tiger_data', 'topology', 'repack', 'partman')
  AND lower(c.relname) NOT IN (
      '_prisma_migrations', '__drizzle_migrations', '_sqlx_migrations', 'schema_migrations',
      'ar_internal_metadata', 'django_migrations', 'django_session', 'flyway_schema_history',
      'databasechangelog', 'databasechangeloglock', 'knex_migrations', 'knex_migrations_lock',
      'typeorm_metadata', 'alembic_version', 'goose_db_version', 'sequelizemeta')
