-- The consumers of captured tables. A mark is deleted when all of them have turned it into
-- reopenings.
CREATE TABLE IF NOT EXISTS tallymark.consumer (
    id bigint PRIMARY KEY,
    capture text NOT NULL,
    installation text NOT NULL,
    rollup text NOT NULL,
    -- The columns that the rollup uses. NULL: all.
    columns text[],
    since timestamptz NOT NULL DEFAULT clock_timestamp()
)
