CREATE TABLE tallymark.slice (
    rollup text NOT NULL,
    slice_start timestamptz NOT NULL,
    slice_end timestamptz NOT NULL,
    attempt bigint NOT NULL,
    owner text,
    definition text,
    rows_read bigint,
    groups bigint,
    replaced_at timestamptz,
    replaced_by bigint,
    replaced_owner text,
    kept_away timestamptz,
    open_until timestamptz,
    adopted_from text,
    PRIMARY KEY (rollup, slice_start)
)
