CREATE TABLE tallymark.checked (
    rollup text PRIMARY KEY,
    checked_at timestamptz NOT NULL,
    definition text NOT NULL,
    finer text,
    settled_by text NOT NULL,
    history_from timestamptz NOT NULL,
    empty_before timestamptz,
    seal_before timestamptz,
    done_until timestamptz,
    tail timestamptz[],
    verified_through timestamptz,
    slice_seconds bigint NOT NULL,
    grace_seconds bigint NOT NULL,
    ends timestamptz[] NOT NULL,
    failing timestamptz[] NOT NULL,
    window_until timestamptz,
    window_changes bigint
)
