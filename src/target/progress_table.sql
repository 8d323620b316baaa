CREATE UNLOGGED TABLE tallymark.progress (
    rollup text NOT NULL,
    slice_start timestamptz NOT NULL,
    attempt bigint NOT NULL,
    definition text NOT NULL,
    dirty bigint NOT NULL,
    generation bigint NOT NULL DEFAULT 0,
    cursor timestamptz NOT NULL,
    rows_read bigint NOT NULL,
    chunks integer NOT NULL,
    source_ms bigint NOT NULL,
    PRIMARY KEY (rollup, slice_start)
)
