-- A separate role for Tallymark, on Amazon RDS and Aurora. Run as the master user, in the database that holds the events.
-- Put the tables that your rollups name in the place of public.events. It can read those, see how busy the
-- server is, and has no other access.
-- Then set a password with psql's `\password tallymark`, and use
-- postgres://tallymark:PASSWORD@HOST:5432/DATABASE?sslrootcert=global-bundle.pem with Amazon's certificates.
-- Or GRANT rds_iam TO tallymark, and use auth = "rds-iam" with an address without a password (docs/CONFIG.md).
CREATE ROLE tallymark LOGIN CONNECTION LIMIT 20;
GRANT USAGE ON SCHEMA public TO tallymark;
GRANT SELECT ON public.events TO tallymark;
-- To see other roles' sessions: late = "clock" and "column", and the limits `active` and `waiting`, need it.
GRANT pg_read_all_stats TO tallymark;
-- Nothing that another role makes in `public` is called by Tallymark's statements: names in tallymark.toml have their
-- schemas. Where `where` needs functions without one, name schemas here in which no other role may create.
ALTER ROLE tallymark SET search_path = pg_catalog;
-- Seat belts: Tallymark sets stricter limits for each statement itself.
ALTER ROLE tallymark SET statement_timeout = '60s';
ALTER ROLE tallymark SET lock_timeout = '5s';
ALTER ROLE tallymark SET idle_in_transaction_session_timeout = '2min';

-- Only if the rollup tables are in this same database. Leave this out if [target] is another one.
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO tallymark', current_database()); END $$;
