-- Takes the marker of a slice for an attempt. No row comes back when a newer attempt has it.
-- What the marker says of the data (rows_read, definition) stays: it is replaced with the data.
-- Rows that another definition counted say nothing about how many this one should find.
INSERT INTO tallymark.slice AS marker (rollup, slice_start, slice_end, attempt)
VALUES ({rollup}, {start}, {end}, {attempt})
ON CONFLICT (rollup, slice_start) DO UPDATE SET attempt = excluded.attempt
WHERE marker.attempt <= excluded.attempt
RETURNING CASE WHEN marker.definition = {definition} THEN marker.rows_read END AS rows_read
