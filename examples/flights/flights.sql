-- The source table, empty: load.sh fills it in the same transaction.
SET LOCAL client_min_messages = warning; -- no notices that they exist
CREATE TABLE IF NOT EXISTS flights (
    scheduled timestamptz NOT NULL, -- departure as planned
    carrier text NOT NULL,
    flight integer NOT NULL,
    tailnum text,
    origin text NOT NULL,
    dest text NOT NULL,
    dep_time integer, -- local time as HHMM; NULL: the flight was cancelled
    dep_delay integer, -- minutes, negative when early
    arr_delay integer,
    air_time integer,
    distance integer NOT NULL -- miles
);
CREATE INDEX IF NOT EXISTS flights_scheduled ON flights (scheduled);
TRUNCATE flights;
