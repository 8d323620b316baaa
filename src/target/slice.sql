CREATE TABLE tallymark.slice (
    rollup text NOT NULL,
    slice_start timestamptz NOT NULL,
    slice_end timestamptz NOT NULL,
    attempt bigint NOT NULL,
    definition text,
    rows_read bigint,
    groups bigint,
    replaced_at timestamptz,
    replaced_by bigint,
    PRIMARY KEY (rollup, slice_start)
)
