CREATE TABLE tallymark.installation (
    id text PRIMARY KEY,
    places text[] NOT NULL,
    servers text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
