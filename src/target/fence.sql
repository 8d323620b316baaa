-- Takes the marker of a slice for an attempt. No row comes back when a newer attempt has it.
-- What the marker says of the data (rows_read, definition) stays: it is replaced with the data.
-- Rows that another definition counted say nothing about how many this one should find, unless
-- both select the same rows, which the first half of the hash says. But where there were rows, there
-- should be one: a tick recomputes what another definition computed, and must not erase what the
-- source has purged.
INSERT INTO tallymark.slice AS marker (rollup, slice_start, slice_end, attempt)
VALUES ({rollup}, {start}, {end}, {attempt})
ON CONFLICT (rollup, slice_start) DO UPDATE SET attempt = excluded.attempt
WHERE marker.attempt <= excluded.attempt
RETURNING CASE WHEN left(marker.definition, 8) = left({definition}, 8) THEN marker.rows_read
               WHEN marker.rows_read > 0 THEN 1 END AS rows_read
