-- A separate role for Tallymark, on Heroku Postgres. Run as the default credential, in the database that holds the events.
-- Put the tables that your rollups name in the place of public.events. It can read those, see how busy the
-- server is, and has no other access.
-- Standard plans and above: make the role first, with `heroku pg:credentials:create --name tallymark`, which also
-- sets its password; the connection needs ?sslmode=require, as the certificates are self-signed. Essential plans
-- have no further roles and 20 to 40 connections: use the default credential there, and skip this file. On
-- Heroku pg_read_all_stats cannot be granted: use late = "capture" or "grace", and the limits `transactions`, `blocks` and
-- `probe_ms`.
-- Then, as tallymark itself: ALTER ROLE tallymark SET search_path = pg_catalog, so that nothing that another role makes in
-- `public` is called by its statements.
GRANT USAGE ON SCHEMA public TO tallymark;
GRANT SELECT ON public.events TO tallymark;

-- Only if the rollup tables are in this same database. Leave this out if [target] is another one.
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO tallymark', current_database()); END $$;
