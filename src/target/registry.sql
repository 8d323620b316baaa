CREATE TABLE tallymark.rollup (
    rollup text PRIMARY KEY,
    target_table text NOT NULL,
    calendar text,
    generation bigint NOT NULL DEFAULT 0,
    installation text,
    sealed_before timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
