CREATE TABLE tallymark.rollup (
    rollup text PRIMARY KEY,
    target_table text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
