CREATE TABLE tallymark.outstanding (
    rollup text NOT NULL,
    slice_start timestamptz NOT NULL,
    slice_end timestamptz NOT NULL,
    generation bigint NOT NULL,
    cleared bigint NOT NULL DEFAULT 0,
    since timestamptz NOT NULL,
    reason text NOT NULL,
    changed_from timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (rollup, slice_start)
)
