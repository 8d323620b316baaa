-- The table of checkpoints, with a row for each item. Texts are ordered byte by byte, as in the
-- other stores. Each page keeps room for the next version of a row, and no index depends on `item`,
-- so most updates change no index.
CREATE TABLE {table} (
    rollup text COLLATE "C" NOT NULL,
    sort text COLLATE "C" NOT NULL,
    item jsonb NOT NULL,
    unfinished boolean GENERATED ALWAYS AS (jsonb_exists(item, 'unfinished')) STORED,
    PRIMARY KEY (rollup, sort)
) WITH (fillfactor = 80)
