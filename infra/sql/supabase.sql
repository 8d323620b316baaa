-- A separate role for Tallymark, on Supabase. Run as postgres (the SQL editor is), in the database that holds the events.
-- Put the tables that your rollups name in the place of public.events. It can read those, see how busy the
-- server is, and has no other access.
-- Then ALTER ROLE tallymark PASSWORD '…', and use the session pooler:
-- postgres://tallymark.PROJECT:PASSWORD@REGION.pooler.supabase.com:5432/postgres (the direct host is IPv6 only
-- unless the add-on is paid for). The transaction pooler, port 6543, works as well.
CREATE ROLE tallymark LOGIN CONNECTION LIMIT 10;
-- Tables here have row-level security, under which a role counts only the rows that a policy shows it. Then
-- Tallymark refuses to count.
ALTER ROLE tallymark BYPASSRLS;
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
