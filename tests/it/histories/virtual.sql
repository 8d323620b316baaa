-- A clock that the test moves. `virtual` comes before pg_catalog in every session's search path, so
-- that unqualified names find it first: in Tallymark's statements and in the triggers' conditions.
-- Everything else, snapshots and transaction IDs above all, is PostgreSQL's own.
CREATE SCHEMA virtual;
-- Milliseconds since 2026-01-01. Sequences are read and written outside of transactions.
CREATE SEQUENCE virtual.now MINVALUE 0;
CREATE SEQUENCE virtual.begin_a MINVALUE 0;
CREATE SEQUENCE virtual.begin_b MINVALUE 0;
CREATE FUNCTION virtual.at(ms bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE
    AS $$ SELECT '2026-01-01Z'::timestamptz + ms * interval '1 millisecond' $$;
-- In PL/pgSQL, which keeps its plan: every statement of every history asks for the time.
CREATE FUNCTION virtual.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql VOLATILE
    AS $$ BEGIN RETURN (SELECT virtual.at(last_value) FROM virtual.now); END $$;
-- When the application's two sessions began, by that clock.
CREATE VIEW virtual.pg_stat_activity AS
    SELECT a.pid, a.usename, a.application_name, a.datname, a.backend_type, a.backend_xid,
           CASE WHEN a.xact_start IS NULL THEN NULL
                WHEN a.application_name = 'app_a' THEN (SELECT virtual.at(last_value) FROM virtual.begin_a)
                WHEN a.application_name = 'app_b' THEN (SELECT virtual.at(last_value) FROM virtual.begin_b)
                ELSE a.xact_start END AS xact_start
    FROM pg_catalog.pg_stat_activity a;
CREATE TABLE public.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz,
    kind text,
    amount integer NOT NULL,
    -- Unknown for each seventh amount.
    is_paid boolean GENERATED ALWAYS AS (nullif(amount % 7, 0) > 2) STORED,
    updated_at timestamptz NOT NULL
);
CREATE INDEX ON public.events (at);
CREATE INDEX ON public.events (updated_at);
-- The names of kinds.
CREATE TABLE public.labels (kind text UNIQUE, name text, note text);
