-- Who counts a captured table, and which marks each has turned into reopenings. A mark goes when all have.
CREATE TABLE IF NOT EXISTS tallymark.consumer (
    id bigint PRIMARY KEY,
    capture text NOT NULL,
    installation text NOT NULL,
    rollup text NOT NULL,
    -- The columns that the rollup uses; NULL: all.
    columns text[],
    since timestamptz NOT NULL DEFAULT clock_timestamp()
)
