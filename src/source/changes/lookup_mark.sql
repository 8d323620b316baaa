-- The keys of changed rows of lookups, each as text. NULL: all keys. A tick replaces them by marks of
-- the hours in which the captured table has rows of these keys.
CREATE TABLE IF NOT EXISTS tallymark.lookup_mark (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lookup text NOT NULL,
    key text[],
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
