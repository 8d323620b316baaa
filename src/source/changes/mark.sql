CREATE TABLE tallymark.mark (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    capture text NOT NULL,
    axis text NOT NULL,
    -- Hours since 1970 in UTC, both included. NULL: all of time.
    first_hour bigint,
    last_hour bigint,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The transaction that made the mark.
    xact xid8
)
